"""Database schema revisions."""
