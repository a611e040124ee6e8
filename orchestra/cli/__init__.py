"""The command line. Each command parses its arguments, calls the Python API and prints the result.

`main` finds the module of a command. `typer_adapter` registers commands and maps errors to exit codes. The packages
`run`, `runs` and `learn` hold the groups of commands with the same names.
"""

__all__ = ["context", "learn", "main", "output", "run", "runs", "signals", "typer_adapter"]
