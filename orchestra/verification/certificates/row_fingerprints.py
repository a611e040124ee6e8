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
        sorted_fingerprints = sorted(set(fingerprints))
        return cls(len(sorted_fingerprints), tuple(sorted_fingerprints[: MAX_KEPT if limit is None else limit]))

    @property
    def is_complete(self) -> bool:
        """Whether the fingerprints of all rows are kept."""
        return self.count <= len(self.lowest)

    def merge(self, other: RowFingerprints) -> RowFingerprints:
        """Merges two sets, as for a training that continues another one."""
        merged_fingerprints = sorted({*self.lowest, *other.lowest})
        rows = len(merged_fingerprints) if self.is_complete and other.is_complete else self.count + other.count
        return RowFingerprints(rows, tuple(merged_fingerprints[:MAX_KEPT]))

    def count_matches(self, fingerprints: Collection[str]) -> tuple[int, int]:
        """Returns how many of these fingerprints are comparable with the rows, and how many match."""
        comparable_fingerprints = [
            fingerprint for fingerprint in fingerprints if self.is_complete or fingerprint <= self.lowest[-1]
        ]
        lowest = frozenset(self.lowest)
        return len(comparable_fingerprints), sum(fingerprint in lowest for fingerprint in comparable_fingerprints)

    def overlaps(self, fingerprints: Collection[str]) -> bool:
        """Whether more than `OVERLAP_THRESHOLD` of these fingerprints match; for a sample, significantly more."""
        match_count, hits = self.count_matches(frozenset(fingerprints))
        return (
            hits / match_count if self.is_complete and match_count else confidence_interval(hits, match_count)[0]
        ) > OVERLAP_THRESHOLD

    def overlap_share(self, fingerprints: Collection[str]) -> float:
        """Share of rows in common with others, given all fingerprints of those: relative to these or to those, the
        larger one.
        """
        match_count, hits = self.count_matches(frozenset(fingerprints))
        return max(hits / match_count if match_count else 0.0, hits / len(self.lowest) if self.lowest else 0.0)


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
