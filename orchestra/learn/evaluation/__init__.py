"""Evaluation of agents: rows, metrics, baselines, intervals and cascades."""
