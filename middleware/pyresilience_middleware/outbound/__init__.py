"""Guards for outbound HTTP: a transport for httpx2 and httpx, an adapter for requests."""
