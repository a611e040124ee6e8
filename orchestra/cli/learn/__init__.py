"""The commands `learn` and `certify`: build datasets, and train, evaluate, promote and certify agents."""

__all__ = ["audit", "certify", "commands", "data", "evaluate", "train"]
