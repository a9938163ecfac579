"""Checks and repairs of a house at rest."""
