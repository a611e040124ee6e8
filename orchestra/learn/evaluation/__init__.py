"""Evaluation of agents: rows, metrics, baselines and cascades."""
