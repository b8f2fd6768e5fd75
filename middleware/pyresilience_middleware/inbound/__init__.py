"""Inbound requests: the ASGI middleware, its endpoints and its responses."""
