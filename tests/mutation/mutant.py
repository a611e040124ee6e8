"""Mutants: faults that are put into a copy of the source text. Lists of them are TOML files."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault.

    Attributes:
        name: What is wrong with it.
        file: The file, relative to the repository.
        old: The text that is replaced. It occurs once.
        new: The text in its place.
        test: The tests that fail with it, as arguments of pytest. Empty where the simulation finds it.
    """

    name: str
    file: str
    old: str
    new: str
    test: str = ""


def load(path: Path) -> tuple[Mutant, ...]:
    """The mutants of a TOML file."""
    return tuple(Mutant(**entry) for entry in tomllib.loads(path.read_text())["mutant"])


def patched(mutant: Mutant, folder: Path = ROOT) -> str:
    """The file's text with the fault in it.

    Raises:
        LookupError: The text to replace does not occur once: the source has changed.
    """
    text = (folder / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: {mutant.file} has {text.count(mutant.old)} times {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)
