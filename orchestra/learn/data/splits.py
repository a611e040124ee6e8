"""Splits: which part a group belongs to, by a hash of its name that no other row can change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from orchestra.core.errors import InputError
from orchestra.learn.data.dataset import DatasetRow, Split


@dataclass(frozen=True, slots=True)
class SplitShares:
    """The shares of the groups that are held out; the rest is trained on."""

    tune: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        """Raises `InputError` N005 for shares that leave nothing to train on."""
        if not (0 <= self.tune < 1 and 0 <= self.test < 1 and self.tune + self.test < 1):
            raise InputError(
                "N005",
                f"--tune {self.tune:g} and --test {self.test:g} are no shares that leave something to train on",
                hint="--tune 0.1 --test 0.1",
            )


def assign_split(group: str, shares: SplitShares, salt: str = "") -> Split:
    """The part of a group: always the same, whatever rows come or go."""
    place = int.from_bytes(hashlib.sha256(f"{salt}\n{group}".encode()).digest()[:8], "big") / 2**64
    return "test" if place < shares.test else "tune" if place < shares.test + shares.tune else "train"


def split(rows: Iterable[DatasetRow], shares: SplitShares, salt: str = "") -> dict[Split, list[DatasetRow]]:
    """The rows by part."""
    parts: dict[Split, list[DatasetRow]] = {"train": [], "tune": [], "test": []}
    for row in rows:
        parts[assign_split(row.group, shares, salt)].append(row)
    return parts
