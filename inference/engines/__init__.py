"""Engines: tokens in, events out."""
