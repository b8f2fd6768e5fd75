"""One file for each policy: the code by hand, ours, and the peers."""
