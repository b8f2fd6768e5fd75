"""Requests per second over the loopback interface: a guarded client, and a guarded application under uvicorn."""
