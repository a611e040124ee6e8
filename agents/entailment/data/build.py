"""The training data set of the agent `entailment`: BEGIN, Factcheck-GPT, edits of their true evidence, and written
claims.

    python -m agents.entailment.data.build --data FOLDER --out FOLDER [--held-edits] [--again 0.35] [--new shortened]

`FOLDER` has the folders begin (CC BY 4.0, Dziri et al. 2022, `github.com/google/BEGIN-dataset`) and factcheckgpt
(Apache-2.0, Wang et al. 2023, `github.com/yuxiaw/Factcheck-GPT`); their training splits are read. A true claim is
edited (`bench.claim_edits`) in three ways, so that neither the claim alone nor common words determine the label: the
claim, which is then contradicted; the evidence, with the same result; and both alike, which keeps the claim supported.
Without the sentence that supports it, a claim is not stated. The written claims (`bench.written_rows`), and sentences
of their passages, are by authors who had seen no row of these sets.

`--again` adds the written rows and sets the share of the public rows beside them: 1 for a training from the base, less
for a training that continues from an adapter trained on these. With `--new` the adapter has seen all other kinds of
written rows too, and the share applies to them as well. Without `--again` the set has only public rows.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.claim_edits import Edit, edits, names_in
from bench.data_sets import command_line, write
from bench.written_rows import renewed
from orchestra.agents.card import Card
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, DatasetSource, SplitShares, split
from orchestra.schema.strict_json import digest

ROOT = Path(__file__).resolve().parents[3]
SHARES = SplitShares(tune=0.06, test=0.0)
KINDS = ("claims", "sentences", "shortened", "plain")
"""Kinds of written rows."""
LABELS = {
    "begin": {"supported": "supported", "unsupported": "not stated"},
    "factcheckgpt": {
        "support": "supported",
        "refute": "contradicted",
        "partial": "not stated",
        "irrelevant": "not stated",
    },
}
IRRELEVANT = 0.45
"""Share of the irrelevant pairs of Factcheck-GPT that is kept: they are the majority, and easy."""
LONGEST = 1_000
"""Maximal number of characters of evidence; longer evidence is cut at a sentence."""
REFUTED = 2
"""Number of copies of a refuted pair: there are few."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A claim, its evidence, and the label."""

    id: str
    claim: str
    evidence: str
    label: str
    group: str

    def row(self) -> DatasetRow:
        """Returns the pair as a row of a data set."""
        return DatasetRow(self.id, {"claim": self.claim, "evidence": self.evidence}, {"label": self.label}, self.group)


def pairs_of(name: str, path: Path) -> list[Pair]:
    """Returns the pairs of a public set in the order of its file."""
    chance = random.Random(f"{name} kept")
    found = []
    for line in path.read_text("utf-8").splitlines():
        item = json.loads(line)
        label, evidence = item["expected"]["label"], _cut(item["input"]["evidence"])
        if label == "irrelevant" and chance.random() > IRRELEVANT:
            continue
        if item["expected"].get("original") == "Generic":
            continue
        group = digest(" ".join(re.findall(r"\w+", evidence.lower())).encode())[:16]
        pair = Pair(item["id"], item["input"]["claim"], evidence, LABELS[name][label], group)
        found += [pair] if label != "refute" else [_again(pair, number) for number in range(REFUTED)]
    return found


def _again(pair: Pair, number: int) -> Pair:
    return Pair(f"{pair.id}-{number}" if number else pair.id, pair.claim, pair.evidence, pair.label, pair.group)


def _cut(evidence: str) -> str:
    if len(evidence) <= LONGEST:
        return evidence
    end = evidence.rfind(". ", 0, LONGEST)
    return evidence[: end + 1] if end > LONGEST // 2 else evidence[:LONGEST]


def edited(pairs: Sequence[Pair], share: float, names: Sequence[str]) -> Iterator[Pair]:
    """Returns edits of true pairs and of their evidence."""
    for pair in pairs:
        chance = random.Random(f"{pair.id} edited")
        if pair.label != "supported" or chance.random() > share:
            continue
        made = edits(pair.claim, pair.evidence, names, chance)
        chance.shuffle(made)
        for number, edit in enumerate(made[:2]):
            yield from _variants(pair, edit, f"{pair.id}-{edit.kind}{number}", chance)
        if (without := _without(pair)) is not None:
            yield Pair(f"{pair.id}-without", pair.claim, without, "not stated", pair.group)


def _variants(pair: Pair, edit: Edit, name: str, chance: random.Random) -> Iterator[Pair]:
    """Returns the edited claim; if the evidence has the piece too, the edited evidence or both."""
    how = chance.random()
    shared = edit.stands_in(pair.evidence) and edit.kind != "denial"
    if not shared or how < 0.45:
        yield Pair(f"{name}-claim", edit.applied(pair.claim), pair.evidence, "contradicted", pair.group)
    elif how < 0.7:
        yield Pair(f"{name}-evidence", pair.claim, edit.applied(pair.evidence), "contradicted", pair.group)
    else:
        yield Pair(f"{name}-both", edit.applied(pair.claim), edit.applied(pair.evidence), "supported", pair.group)


def _without(pair: Pair) -> str | None:
    """Returns the evidence without the sentence that shares most words with the claim; None if little is left."""
    sentences = re.split(r"(?<=[.!?])\s+", pair.evidence)
    words = set(re.findall(r"\w+", pair.claim.lower()))
    best = max(sentences, key=lambda one: len(words & set(re.findall(r"\w+", one.lower()))))
    rest = " ".join(one for one in sentences if one != best)
    return rest if len(rest) > 80 else None


def made(folder: Path, held_edits: bool = False, again: float | None = None, new: Sequence[str] = KINDS) -> Dataset:
    """Builds the data set; optionally with edits of the held-back groups in its tune split, for calibration."""
    sources = {name: folder / name / "train.jsonl" for name in LABELS}
    pairs = {name: pairs_of(name, path) for name, path in sources.items()}
    names = sorted({name for pair in pairs["factcheckgpt"] for name in names_in(pair.evidence) if len(name) > 3})
    more = [*edited(pairs["begin"], 0.7, names), *edited(pairs["factcheckgpt"], 1.0, names)]
    parts = split([pair.row() for pair in (*pairs["begin"], *pairs["factcheckgpt"])], SHARES)
    held = {row.group for row in parts["tune"]}
    parts = {**parts, "train": [*parts["train"], *(pair.row() for pair in more if pair.group not in held)]}
    if held_edits:
        parts["tune"] = [*parts["tune"], *(pair.row() for pair in more if pair.group in held)]
    licences = {"begin": "CC BY 4.0", "factcheckgpt": "Apache-2.0"}
    origins = [
        DatasetSource(
            f"{name}, train part", licences[name], digest(sources[name].read_bytes()), "as they are", len(pairs[name])
        )
        for name in LABELS
    ]
    origins.append(DatasetSource("both", "CC BY 4.0, Apache-2.0", "", "deterministic edits of true pairs", len(more)))
    if again is not None:
        parts, found = renewed(parts, [kind for kind in KINDS if kind not in new], 1.0, SHARES)
        parts, others = renewed(parts, new, again, SHARES)
        origins += [*found, *others]
    card = Card.load(ROOT / "agents" / "entailment")
    return Dataset.build("claims", card.name, contract_digest(card), "CC BY 4.0 and Apache-2.0", origins, parts)


def main() -> None:
    """Writes the folder."""
    parser = command_line(__doc__, "the folder with begin and factcheckgpt")
    parser.add_argument(
        "--held-edits",
        action="store_true",
        help="add edits of held-back rows to the tune split, for calibration",
    )
    parser.add_argument(
        "--again", type=float, help="add written claims, and use this share of the public rows and edits"
    )
    parser.add_argument(
        "--new",
        nargs="+",
        choices=KINDS,
        default=KINDS,
        help="kinds of written rows that are used completely; of others the share",
    )
    given = parser.parse_args()
    write(made(given.data, given.held_edits, given.again, given.new), given.out)


if __name__ == "__main__":
    main()
