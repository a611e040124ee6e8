"""Splits: which part a group belongs to, by a hash of its name that no other row can change."""

from __future__ import annotations

import hashlib

from orchestra.learn.dataset import Part


def part_of(group: str, *, tune: float, test: float, salt: str = "") -> Part:
    """The part of a group; `tune` and `test` are the shares of groups that they get."""
    place = int.from_bytes(hashlib.sha256(f"{salt}\n{group}".encode()).digest()[:8], "big") / 2**64
    return "test" if place < test else "tune" if place < test + tune else "train"
