"""A live cascade: the untuned base, the shipped adapter, and several samples of it with a vote, each asked only where the one before it may
be wrong.

    python -m bench.cascade --data FOLDER [--rows 200] [--only SET ...] [--minutes 20] [--out FOLDER] [--collect | --offline] [--page]

Collects on the real fleet, which it starts or adopts, what each tier answers to rows of the dev parts, into files of `--out` that it goes
on with the next time; `--collect` ends there, and `--offline` takes what is in the files. What routing would have made of them is reckoned
from the answers. `--page` puts the tables into docs/routing.md.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import machine
from bench.answer_sheets import WARM, Arm, Collector, Set, plain, rows_of
from bench.verification import cards_of, tell
from orchestra import Orchestra
from orchestra.agent.card import Card
from orchestra.config import Settings
from orchestra.learn.evaluation import untuned
from orchestra.learn.questions import Test

SETS = (
    Set("svamp", "calculator", "svamp"),
    Set("xquad_en", "reader"),
    Set("tatqa", "table_reader"),
    Set("bfcl", "caller"),
)
VOTES = 5
"""Samples of the dearest tier."""
TIMED = 16
"""Rows that are asked one after the other."""


def arms_of(one: Set, card: Card, test: Test) -> Iterable[Arm]:
    """What is asked for a set: the adapter, the base without it, then the samples of the adapter, one after the other."""
    inputs = {row.id: row.input for row in test.questions}
    yield Arm(one, "adapter", plain(card), inputs)
    yield Arm(one, "untuned", plain(untuned(card)), inputs)
    for number in range(1, VOTES + 1):
        yield Arm(one, f"sample{number}", plain(card, sampling={"temperature": WARM, "seed": number}), inputs)


def timed(arms: Iterable[Arm]) -> Iterable[Arm]:
    """The same for a few rows, which are asked one after the other: what one call takes alone."""
    for arm in arms:
        few = {name: arm.inputs[name] for name in sorted(arm.inputs)[:TIMED]}
        yield Arm(arm.of, f"{arm.name}.alone", arm.card, few)


async def collect(given: argparse.Namespace, sets: Sequence[Set], out: Path) -> None:
    """Asks what is not in the files."""
    cards = cards_of()
    until = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"journal": str(Path(folder) / "journal.db"), "concurrency": 64}, start=machine.ROOT)
        async with Orchestra.open(settings, progress=None) as orchestra:
            many, alone = Collector(orchestra, out, until, tell), Collector(orchestra, out, until, tell, at_once=1)
            for one in sets:
                arms = list(arms_of(one, cards[one.agent], rows_of(one, cards[one.agent], given.data, given.rows)))
                for arm in arms:
                    await many.collect(arm)
                for arm in timed(arms[:3]):
                    await alone.collect(arm)


def main() -> None:
    """Collects, reckons and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with one folder a set")
    parser.add_argument("--rows", type=int, default=200, help="of each set")
    parser.add_argument("--only", nargs="*", default=[], help="these sets")
    parser.add_argument("--minutes", type=float, default=20, help="of asking, at most")
    parser.add_argument("--out", type=Path, default=machine.folder() / "cascade", help="where the answers are")
    parser.add_argument("--collect", action="store_true", help="ask, and reckon nothing")
    parser.add_argument("--offline", action="store_true", help="ask nothing")
    parser.add_argument("--page", action="store_true", help="put the tables into docs/routing.md")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sets = [one for one in SETS if not given.only or one.name in given.only]
    if not given.offline:
        asyncio.run(collect(given, sets, given.out))


if __name__ == "__main__":
    main()
