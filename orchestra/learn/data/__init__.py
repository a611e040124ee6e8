"""Data sets: rows, sources, splits, traces, teachers, and the provenance of a training."""

__all__ = [
    "collection",
    "dataset",
    "provenance",
    "sources",
    "teacher",
    "traces",
]
