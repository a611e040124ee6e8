"""Fixtures: the command line in this process."""

from tests.cli.shell import shell

__all__ = ["shell"]
