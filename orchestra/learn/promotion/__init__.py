"""Promotion: candidates, and the replacement of what an agent has learnt."""

__all__ = [
    "candidates",
    "promotion",
]
