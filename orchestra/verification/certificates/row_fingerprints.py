"""Marks of rows: digests of their inputs, by which rows are known again under any name of a file, in any order, with others between.

Of many the lowest are kept: they are a sample, and of any other rows the same sample can be taken. No text can be read in them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from orchestra.verification.certificates.certify import interval

MOST = 10_000
"""Marks of a part that are kept of what was learnt from it."""
SKETCH = 200
"""Marks that a promise keeps of the rows that it was made on."""
LENGTH = 16
"""Characters of a mark."""
SHARE = 0.1
"""Rows may have the same inputs by chance, such as `hello`: up to this share of them is not many."""


class Marks(msgspec.Struct, frozen=True):
    """Some rows, of which the lowest marks are kept."""

    rows: int
    lowest: tuple[str, ...]

    @classmethod
    def of(cls, marks: Iterable[str], most: int | None = None) -> Marks:
        """Of all marks of some rows; rows of one mark count once."""
        each = sorted(set(marks))
        return cls(len(each), tuple(each[: MOST if most is None else most]))

    @property
    def whole(self) -> bool:
        """Whether the marks of all rows are kept."""
        return self.rows <= len(self.lowest)

    def and_(self, other: Marks) -> Marks:
        """Both together, as where a training goes on from another."""
        each = sorted({*self.lowest, *other.lowest})
        rows = len(each) if self.whole and other.whole else self.rows + other.rows
        return Marks(rows, tuple(each[:MOST]))

    def held(self, marks: Collection[str]) -> tuple[int, int]:
        """How many of these marks can be held against the rows, and how many of them are theirs."""
        looked = [one for one in marks if self.whole or one <= self.lowest[-1]]
        known = frozenset(self.lowest)
        return len(looked), sum(one in known for one in looked)

    def many(self, marks: Collection[str]) -> bool:
        """Whether more than `SHARE` of these marks are of the rows; where a sample is kept, surely more."""
        looked, hits = self.held(frozenset(marks))
        return (hits / looked if self.whole and looked else interval(hits, looked)[0]) > SHARE

    def shared(self, marks: Collection[str]) -> float:
        """The share of rows in common with others, of which all marks are given: of these or of those, whichever is more."""
        looked, hits = self.held(frozenset(marks))
        return max(hits / looked if looked else 0.0, hits / len(self.lowest) if self.lowest else 0.0)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows: digests of their bytes, and all their marks."""

    digests: frozenset[str]
    marks: frozenset[str]

    def share(self, digests: Collection[str], marks: Marks | msgspec.UnsetType) -> bool:
        """Whether others, by their digests or marks, are these, or have no few in common with them that may be there by chance."""
        return not self.digests.isdisjoint(digests) or (isinstance(marks, Marks) and marks.shared(self.marks) > SHARE)
