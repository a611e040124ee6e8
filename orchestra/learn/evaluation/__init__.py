"""Evaluation of agents: rows, metrics, baselines, intervals and cascades."""

__all__ = [
    "baselines",
    "bootstrap",
    "cascade",
    "classification",
    "config",
    "evaluation",
    "gates",
    "metrics",
    "rows",
]
