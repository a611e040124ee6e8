"""The table reader: encoding, choice of rows, columns and operations, conditions, and units."""

__all__ = ["encoding", "filters", "head", "operations", "question", "reader", "scales"]
