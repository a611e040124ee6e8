"""The training data set of the agents `crf_extractor` and `encoder_extractor`, from the training split of Restaurant8k.

    python -m agents.extractor.data.build --data FOLDER/restaurant8k --out FOLDER [--composed 400]

Restaurant8k (Coope, Farghly, Gerz, Vulić, Henderson 2020), `github.com/PolyAI-LDN/task-specific-datasets`, CC BY 4.0.
The original rows, and *composed* ones: phrases of several slots in one short request, because most original rows fill
one slot or none, and people write “table for two tomorrow at 7”. Rows are split by text; composed rows use only phrases
of the training split, and are used for training only.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.data_sets import command_line, write
from orchestra.agents.card import Card
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, DatasetSource, SplitShares, split
from orchestra.schema.strict_json import digest

ROOT = Path(__file__).resolve().parents[3]
SEED = 1
SHARES = SplitShares(tune=0.1, test=0.1)
LONGEST = 30
"""Maximal number of characters of a phrase in a composed row."""
OPENINGS = (
    "I need a table", "table", "Table", "Can I book", "book", "a booking", "reservation", "We need a table",
    "Could I get a table",
    "I'd like to book", "please book a table", "hi, table",
)  # fmt: skip
ENDS = ("", "", ".", " please", "?")
_TIMED = re.compile(r"(at|around|in|by|after|before|from|between)\b")
_DATED = re.compile(r"(on|in|for|this|next|the|today|tomorrow|tonight)\b")


def rows_of(path: Path) -> list[DatasetRow]:
    """Reads the rows of a file of Restaurant8k; a group is a text without case and punctuation."""
    found = []
    for line in path.read_text("utf-8").splitlines():
        item = json.loads(line)
        group = " ".join(re.findall(r"\w+", item["input"]["text"].lower())) or item["id"]
        found.append(
            DatasetRow(item["id"], item["input"], {"slots": item["expected"]["slots"]}, digest(group.encode())[:16])
        )
    return found


class _Request:
    """A text under construction, with the positions of its phrases."""

    def __init__(self, opening: str) -> None:
        self.text, self.slots = opening, dict[str, dict[str, Any]]()

    def add(self, before: str, slot: str, phrase: str) -> None:
        start = len(self.text) + len(before)
        self.text += before + phrase
        self.slots[slot] = {"value": phrase, "start": start, "end": len(self.text)}


def composed(rows: Sequence[DatasetRow], count: int, seed: int) -> Iterator[DatasetRow]:
    """Composes requests from phrases of these rows."""
    chance = random.Random(seed)
    phrases: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for slot, span in row.output["slots"].items():
            if len(span["value"]) < LONGEST:
                phrases[slot].append(span["value"].strip(".,"))
    for number in range(count):
        request = _Request(chance.choice(OPENINGS))
        wanted = [slot for slot in ("people", "date", "time") if chance.random() < 0.75] or ["people"]
        chance.shuffle(wanted)
        for slot in wanted:
            phrase = chance.choice(phrases[slot])
            request.add(_before(slot, phrase, chance), slot, phrase)
        if chance.random() < 0.2:
            request.add(
                chance.choice((", name is ", " under ", ", ", " for ")),
                "first_name",
                chance.choice(phrases["first_name"]),
            )
            request.add(" ", "last_name", chance.choice(phrases["last_name"]))
        request.text += chance.choice(ENDS)
        yield DatasetRow(
            f"composed-{number:05}",
            {"text": request.text, "requested": []},
            {"slots": request.slots},
            f"composed-{number:05}",
        )


def _before(slot: str, phrase: str, chance: random.Random) -> str:
    """Returns the separator between a phrase and the preceding text."""
    match slot:
        case "people":
            return " for " if chance.random() < 0.85 else ", "
        case "time":
            return " " if _TIMED.match(phrase.lower()) else chance.choice((" at ", " at ", " ", ", ", " around "))
        case _:
            return (
                chance.choice((" ", " ", ", "))
                if _DATED.match(phrase.lower())
                else chance.choice((" on ", " ", " ", ", ", " for "))
            )


def made(source: Path, count: int) -> Dataset:
    """Builds the data set."""
    rows = rows_of(source)
    parts: Mapping[Any, list[DatasetRow]] = split(rows, SHARES)
    more = list(composed(parts["train"], count, SEED))
    name = "Restaurant8k, Coope et al. 2020, train part"
    origins = [
        DatasetSource(name, "CC BY 4.0", digest(source.read_bytes()), "as they are", len(rows)),
        DatasetSource(
            name, "CC BY 4.0", digest(source.read_bytes()), "phrases of slots composed to short requests", len(more)
        ),
    ]
    card = Card.load(ROOT / "agents" / "crf_extractor")
    return Dataset.build(
        "restaurant8k",
        card.name,
        contract_digest(card),
        "CC BY 4.0",
        origins,
        {**parts, "train": [*parts["train"], *more]},
    )


def main() -> None:
    """Writes the folder."""
    parser = command_line(__doc__, "the folder restaurant8k")
    parser.add_argument("--composed", type=int, default=400)
    given = parser.parse_args()
    write(made(given.data / "train.jsonl", given.composed), given.out)


if __name__ == "__main__":
    main()
