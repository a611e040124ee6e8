"""Data sets: rows, sources, splits, traces, teachers, and the provenance of a training."""
