"""Evaluates how follow-ups become full requests: `python -m bench.conversations`.

Each line of `follow_ups.yaml` has earlier turns with the values of their answers, a follow-up, and the full requests
that are right. The tables are those of the world. A wrong full request is worse than none: then the user is asked, or
the request is passed on with a remark.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from orchestra.documents.reading import read_files
from orchestra.router.follow_ups import EarlierTurn, Resolution, resolve_follow_up
from orchestra.router.typed_values import Vocabulary
from orchestra.schema.strict_yaml import load_yaml
from orchestra.text.keywords import WORD

ROOT = Path(__file__).resolve().parents[2]
Verdict: TypeAlias = Literal["right", "wrong", "unchanged"]
"""`unchanged`: a follow-up that was not resolved although it means a full request."""


@dataclass(frozen=True)
class FollowUp:
    """A follow-up with its conversation."""

    id: str
    world: str
    turns: tuple[EarlierTurn, ...]
    text: str
    expected: tuple[str, ...]
    """The full requests that are right; empty if the user must be asked."""


def read_follow_ups(path: Path | None = None) -> list[FollowUp]:
    """Reads the follow-ups. A request that must be left alone expects itself."""
    file = path or Path(__file__).with_name("follow_ups.yaml")
    content: dict[str, Any] = load_yaml(file.read_bytes(), str(file)).value
    return [
        FollowUp(
            one["id"],
            one["world"],
            tuple(EarlierTurn(request, (value,) if value else (), value) for request, value in one["turns"]),
            one["say"],
            () if one.get("ask") else (one["say"],) if one.get("unchanged") else tuple(one["expected"]),
        )
        for one in content["follow_ups"]
    ]


@cache
def world_vocabulary(world: str) -> Vocabulary:
    """Returns the names in the tables of a world."""
    folder = ROOT / "examples/office/documents" if world == "office" else ROOT / f"bench/requests/dev/{world}"
    files = sorted(path for path in folder.rglob("*.csv"))
    return Vocabulary.of(read_files(files).tables)


def judge(follow_up: FollowUp, resolution: Resolution) -> Verdict:
    """Returns the verdict about a resolution."""
    kept = resolution.status in ("ambiguous", "unresolved")
    if not follow_up.expected:
        return "right" if kept else "wrong"
    if follow_up.text in follow_up.expected:
        return "right" if resolution.status == "complete" else "wrong"
    if kept or resolution.status == "complete":
        return "unchanged"
    return "right" if _folded(resolution.request) in map(_folded, follow_up.expected) else "wrong"


def _folded(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]


def evaluate(follow_ups: Sequence[FollowUp]) -> list[tuple[FollowUp, Resolution, Verdict]]:
    """Resolves each follow-up and returns the verdicts."""
    rows = []
    for one in follow_ups:
        resolution = resolve_follow_up(one.text, one.turns, world_vocabulary(one.world))
        rows.append((one, resolution, judge(one, resolution)))
    return rows


def main() -> None:
    """Prints the verdicts and their counts."""
    parser = argparse.ArgumentParser(prog="python -m bench.conversations", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also print the right ones")
    given = parser.parse_args()
    rows = evaluate(read_follow_ups())
    for one, resolution, verdict in rows:
        if given.all or verdict != "right":
            print(f"{one.id} {verdict}: {one.text!r} -> {resolution.status} {resolution.request!r}")
            for option in resolution.options:
                print(f"    or {option!r}")
    counts = Counter(verdict for _, _, verdict in rows)
    print(f"{len(rows)} follow-ups: {counts['right']} right, {counts['wrong']} wrong, {counts['unchanged']} unchanged")


if __name__ == "__main__":
    main()
