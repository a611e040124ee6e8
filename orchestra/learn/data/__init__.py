"""Data sets: rows, sources, splits, traces and teachers."""
