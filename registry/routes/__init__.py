"""Doors: wire shapes in, desk called, wire shapes out."""
