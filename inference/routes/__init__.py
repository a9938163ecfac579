"""Doors of the sidecar."""
