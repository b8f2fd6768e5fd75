"""How pipelines wait: on anyio, or by blocking."""
