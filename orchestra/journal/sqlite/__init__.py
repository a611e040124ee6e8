"""The journal in an SQLite file."""

__all__ = ["commit_loss", "journal", "queries"]
