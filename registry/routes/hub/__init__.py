"""The Hub door."""
