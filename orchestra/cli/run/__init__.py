"""The commands `run`, `ask`, `plan` and `batch`, which start runs, and the display of runs and results."""

__all__ = ["batch", "commands", "explain", "plan", "questions", "result_view", "run", "watch"]
