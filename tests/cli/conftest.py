"""Fixtures of the command line's tests."""

from tests.cli.shell import shell

__all__ = ["shell"]
