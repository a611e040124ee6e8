"""The engine runs compiled workflows durably: `decide` proposes, a driver executes, `evolve` folds the recorded events
into the state.

`Engine.start` takes a program and a `RunRequest` and returns the run's `Execution`. It reaches the outside through
three protocols only: clock, journal and workers.
"""

__all__ = ["call_results", "engine", "kinds", "replay", "request", "run", "streaming"]
