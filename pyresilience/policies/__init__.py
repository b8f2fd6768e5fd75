"""The policies, one file each: config, state, layer, events."""
