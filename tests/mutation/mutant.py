"""Mutants: faults that are inserted into a copy of the source. TOML files list them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault.

    Attributes:
        name: What is wrong.
        file: The file, relative to the repository.
        old: The text that is replaced. It occurs once.
        new: The replacement.
        test: The tests that fail with it, as arguments of pytest. Empty if the simulation finds it.
    """

    name: str
    file: str
    old: str
    new: str
    test: str = ""


def load(path: Path) -> tuple[Mutant, ...]:
    """Returns the mutants of a TOML file."""
    return tuple(Mutant(**entry) for entry in tomllib.loads(path.read_text())["mutant"])


def patched(mutant: Mutant, folder: Path = ROOT) -> str:
    """Returns the file's text with the fault.

    Raises:
        LookupError: The text to replace does not occur exactly once, because the source has changed.
    """
    text = (folder / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: {mutant.file} has {text.count(mutant.old)} times {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)
