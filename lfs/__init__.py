"""Bytes: moving and proving large files. Knows neither the registry nor the sidecar."""
