"""Fixtures of the command line tests."""

from tests.cli.shell import shell
from tests.cli.shop import shop

__all__ = ["shell", "shop"]
