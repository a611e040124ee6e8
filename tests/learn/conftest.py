"""Fixtures of the tests of learning."""

from tests.cli.shell import shell

__all__ = ["shell"]
