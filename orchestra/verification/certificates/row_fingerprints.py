"""Fingerprints of rows: digests of their inputs, which identify rows under any file name, in any order, among others.

Of many fingerprints the lowest are kept. They are a sample, and the same sample can be taken of any other rows. The
text of a row cannot be recovered from them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from orchestra.verification.certificates.certify import confidence_interval

MAX_KEPT = 10_000
"""Maximum fingerprints kept of a training split."""
SAMPLE_SIZE = 200
"""Fingerprints that a certificate keeps of its rows."""
FINGERPRINT_LENGTH = 16
"""Characters of a fingerprint."""
OVERLAP_THRESHOLD = 0.1
"""Rows may have equal inputs by chance, such as `hello`. A larger share than this is an overlap."""


class RowFingerprints(msgspec.Struct, frozen=True):
    """The lowest fingerprints of some rows."""

    count: int
    lowest: tuple[str, ...]

    @classmethod
    def of(cls, fingerprints: Iterable[str], limit: int | None = None) -> RowFingerprints:
        """Builds it from all fingerprints of the rows. Duplicates count once."""
        each = sorted(set(fingerprints))
        return cls(len(each), tuple(each[: MAX_KEPT if limit is None else limit]))

    @property
    def is_complete(self) -> bool:
        """Whether the fingerprints of all rows are kept."""
        return self.count <= len(self.lowest)

    def merge(self, other: RowFingerprints) -> RowFingerprints:
        """Merges two sets, as for a training that continues another one."""
        each = sorted({*self.lowest, *other.lowest})
        rows = len(each) if self.is_complete and other.is_complete else self.count + other.count
        return RowFingerprints(rows, tuple(each[:MAX_KEPT]))

    def count_matches(self, fingerprints: Collection[str]) -> tuple[int, int]:
        """Returns how many of these fingerprints are comparable with the rows, and how many match."""
        looked = [one for one in fingerprints if self.is_complete or one <= self.lowest[-1]]
        known = frozenset(self.lowest)
        return len(looked), sum(one in known for one in looked)

    def overlaps(self, fingerprints: Collection[str]) -> bool:
        """Whether more than `OVERLAP_THRESHOLD` of these fingerprints match; for a sample, significantly more."""
        looked, hits = self.count_matches(frozenset(fingerprints))
        return (
            hits / looked if self.is_complete and looked else confidence_interval(hits, looked)[0]
        ) > OVERLAP_THRESHOLD

    def overlap_share(self, fingerprints: Collection[str]) -> float:
        """Share of rows in common with others, given all fingerprints of those: relative to these or to those, the
        larger one.
        """
        looked, hits = self.count_matches(frozenset(fingerprints))
        return max(hits / looked if looked else 0.0, hits / len(self.lowest) if self.lowest else 0.0)


@dataclass(frozen=True, slots=True)
class RowSet:
    """A set of rows: digests of its bytes, and all its fingerprints."""

    digests: frozenset[str]
    fingerprints: frozenset[str]

    def overlaps(self, digests: Collection[str], fingerprints: RowFingerprints | msgspec.UnsetType) -> bool:
        """Whether other rows, by digests or fingerprints, are these rows or overlap them beyond chance."""
        return not self.digests.isdisjoint(digests) or (
            isinstance(fingerprints, RowFingerprints)
            and fingerprints.overlap_share(self.fingerprints) > OVERLAP_THRESHOLD
        )
