"""Calls, layers and the pipelines that fold them around functions."""
