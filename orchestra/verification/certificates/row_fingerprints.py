"""Marks of rows: digests of their inputs, by which rows are known again under any name of a file, in any order, with others between.

Of many the lowest are kept: they are a sample, and of any other rows the same sample can be taken. No text can be read in them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from orchestra.verification.certificates.certify import confidence_interval

MAX_KEPT = 10_000
"""Marks of a part that are kept of what was learnt from it."""
SAMPLE_SIZE = 200
"""Marks that a promise keeps of the rows that it was made on."""
FINGERPRINT_LENGTH = 16
"""Characters of a mark."""
OVERLAP_THRESHOLD = 0.1
"""Rows may have the same inputs by chance, such as `hello`: up to this share of them is not many."""


class RowFingerprints(msgspec.Struct, frozen=True):
    """Some rows, of which the lowest marks are kept."""

    count: int
    lowest: tuple[str, ...]

    @classmethod
    def of(cls, fingerprints: Iterable[str], limit: int | None = None) -> RowFingerprints:
        """Of all marks of some rows; rows of one mark count once."""
        each = sorted(set(fingerprints))
        return cls(len(each), tuple(each[: MAX_KEPT if limit is None else limit]))

    @property
    def is_complete(self) -> bool:
        """Whether the marks of all rows are kept."""
        return self.count <= len(self.lowest)

    def merge(self, other: RowFingerprints) -> RowFingerprints:
        """Both together, as where a training goes on from another."""
        each = sorted({*self.lowest, *other.lowest})
        rows = len(each) if self.is_complete and other.is_complete else self.count + other.count
        return RowFingerprints(rows, tuple(each[:MAX_KEPT]))

    def count_matches(self, fingerprints: Collection[str]) -> tuple[int, int]:
        """How many of these marks can be held against the rows, and how many of them are theirs."""
        looked = [one for one in fingerprints if self.is_complete or one <= self.lowest[-1]]
        known = frozenset(self.lowest)
        return len(looked), sum(one in known for one in looked)

    def overlaps(self, fingerprints: Collection[str]) -> bool:
        """Whether more than `OVERLAP_THRESHOLD` of these marks are of the rows; where a sample is kept, surely more."""
        looked, hits = self.count_matches(frozenset(fingerprints))
        return (
            hits / looked if self.is_complete and looked else confidence_interval(hits, looked)[0]
        ) > OVERLAP_THRESHOLD

    def overlap_share(self, fingerprints: Collection[str]) -> float:
        """The share of rows in common with others, of which all marks are given: of these or of those, whichever is more."""
        looked, hits = self.count_matches(frozenset(fingerprints))
        return max(hits / looked if looked else 0.0, hits / len(self.lowest) if self.lowest else 0.0)


@dataclass(frozen=True, slots=True)
class RowSet:
    """Some rows: digests of their bytes, and all their marks."""

    digests: frozenset[str]
    fingerprints: frozenset[str]

    def overlaps(self, digests: Collection[str], fingerprints: RowFingerprints | msgspec.UnsetType) -> bool:
        """Whether others, by their digests or marks, are these, or have no few in common with them that may be there by chance."""
        return not self.digests.isdisjoint(digests) or (
            isinstance(fingerprints, RowFingerprints)
            and fingerprints.overlap_share(self.fingerprints) > OVERLAP_THRESHOLD
        )
