"""Workflows: the frozen model, its YAML and Python forms, the compiler, programs, and their analysis and drawing.

Modules that other packages use directly are listed in `__all__`.
"""

__all__ = [
    "analysis",
    "compile",
    "cost_bounds",
    "drawing",
    "expressions",
    "model",
    "program",
    "python",
    "single_step",
    "yaml",
]
