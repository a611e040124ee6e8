"""The commands on recorded runs: `runs` and `whatif`."""

__all__ = ["commands", "costs", "export", "find", "fork", "resume", "show", "tail", "whatif"]
