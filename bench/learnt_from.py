"""Provenance records of the packaged agents: their data sets are built again, and the fingerprints of the rows are
stored beside the weights.

    python -m bench.learnt_from --data FOLDER [--work FOLDER] [AGENT ...]

`FOLDER` has the public sets that the cards name, each with its training split. Most data sets are built by the current
scripts, others by those of an earlier commit, which are extracted from the history into `--work`; they were in `bench`
then. Each must have the digest given here, else nothing is written. These are the digests in `model.json`,
`manifest.json` or the card, so the rows are identical. `entailment` has digests of texts and labels in `model.json`,
and those are compared; `crf_extractor` was identical to the byte when it was trained again. For `difficulty`, and for
the first sets of `generative_calculator`, `generative_reader` and `tool_planner`, cards have the command and the number
of training rows, and no digest. What an encoder of another kind had learnt before (`table_reader`, which
`deductive_calculator` started from) has other inputs, and is left out. The digests of several trainings form one
record, as in a training that continues another. `router` has none: the generator of its first sets was not kept.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestra.agents.card import Card
from orchestra.agents.inference.model_file import EncoderSummary
from orchestra.learn.data import provenance
from orchestra.learn.data.dataset import MANIFEST_FILE, Dataset, DatasetRow
from orchestra.learn.encoders.texts import LabelledText, labelled_texts_digest
from orchestra.learn.promotion.promotion import PROVENANCE_FILE

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("bench", "orchestra", "agents", "configs", "workflows", ":(exclude)*.npz", ":(exclude)*.safetensors")
"""The files of an earlier commit that its scripts need."""


@dataclass(frozen=True, slots=True)
class Made:
    """A data set and the command that builds it."""

    digest: str
    """Prefix of its digest."""
    command: str
    """A module and its arguments; `--out` is added."""
    commit: str = ""
    """The commit whose code builds it; empty for the current code."""


_TABLES = "--data {data}/tatqa --longest 3000"
_CLAIMS = "--data {data} --again"
_SUMS = "--data {data}/gsm8k"
_NEED = (
    "--column question=input.question --column need=expected.strong-expected.weak --licence Apache-2.0 --tune 0.2 "
    "--test 0"
)
_SLOTS = Made("7d6a27ea", "agents.extractor.data.build --data {data}/restaurant8k")
_READER = Made("7ff5d862", "agents.reader.data.build --data {data} --kinds asked siblings")
MADE: dict[str, tuple[Made, ...]] = {
    "caller": (Made("9e347da6", "bench.caller_data --data {data}", "d080139"),),
    "crf_extractor": (_SLOTS,),
    "deductive_calculator": (
        Made("e4f8340b", f"agents.calculator.data.build {_SUMS} --steps 7 --last 1000 --stories 4000"),
        Made("de6925a3", f"agents.calculator.data.build {_SUMS} --steps 7 --last 1000 --stories 4000 --draws 3"),
    ),
    "difficulty": (
        Made(
            "2c708adb", f"orchestra.cli learn data difficulty {{data}}/routellm/train.jsonl.gz --name routellm {_NEED}"
        ),
    ),
    "encoder_extractor": (_SLOTS,),
    "entailment": (
        Made("016633c5", f"bench.entailment_data {_CLAIMS} 1.0", "81f4c192"),
        Made("15095753", f"bench.entailment_data {_CLAIMS} 0.12 --new shortened", "b92a2817"),
        Made("a4b5103d", f"agents.entailment.data.build {_CLAIMS} 0.12 --new plain"),
    ),
    "extractive_reader": (_READER, Made("f735618c", "agents.reader.data.build --data {data}")),
    "generative_calculator": (
        Made("5c472085", f"bench.calculator_data {_SUMS} --stories 15000", "f2c92a5"),
        Made("82314541", f"bench.calculator_data {_SUMS} --steps 4 --last 1000 --stories 4000", "4734951e"),
    ),
    "generative_reader": (
        _READER,
        Made("37ba3cca", "bench.reader_data --data {data} --kinds asked siblings passages", "92fbf00"),
        Made("ee772f80", "bench.reader_data --data {data}", "fe0d7be"),
    ),
    "table_reader": (
        Made("f02bdeda", f"bench.table_data {_TABLES}", "ac66a1c"),
        Made("5261369c", f"bench.table_data {_TABLES}", "2747bb7"),
        Made("73943a21", f"bench.table_data {_TABLES}", "cdc9085"),
        Made("b2f5d6f7", f"bench.table_data {_TABLES} --share 0.5", "bb3b8a5"),
    ),
    "tool_planner": (
        Made("56b14b14", "agents.tool_planner.data.build --data {data}"),
        Made("1339ed9b", "agents.tool_planner.data.build --data {data} --again 7"),
    ),
}
"""By agent, in the order of its trainings."""
INTENTS = ("assistant_intent", "banking_intent")
"""Agents that `bench.train_intents` trains, on rows that are in no folder."""


def made(one: Made, data: Path, work: Path) -> Dataset:
    """Builds a data set, or reuses the one in `work`. Raises `SystemExit` if its digest differs."""
    out = work / one.digest
    if not (out / MANIFEST_FILE).is_file():
        source = ROOT if not one.commit else _source(one.commit, work)
        command = [
            sys.executable,
            "-m",
            *shlex.split(one.command.format(data=shlex.quote(str(data.resolve())))),
            "--out",
            str(out),
        ]
        subprocess.run(command, cwd=source, env={**os.environ, "PYTHONPATH": str(source)}, check=True)
    upgrade_manifest(out)
    found = Dataset.load(out)
    if not found.manifest.digest.startswith(one.digest):
        raise SystemExit(
            f"{one.command} makes {found.manifest.digest} at {one.commit or 'this commit'}, and was to make "
            f"{one.digest}"
        )
    return found


def upgrade_manifest(folder: Path) -> None:
    """Rewrites a manifest of format v1, which the scripts of an earlier commit write, as format v2. The digest is of
    the rows and stays.
    """
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    if manifest["format"] != "orchestra/dataset/v1":
        return
    manifest["format"] = "orchestra/dataset/v2"
    manifest["splits"] = manifest.pop("parts")
    for source in manifest["sources"]:
        source["description"] = source.pop("made", "")
    path.write_text(json.dumps(manifest, indent=2) + "\n")


def _source(commit: str, work: Path) -> Path:
    """Extracts the scripts of an earlier commit."""
    folder = work / f"source-{commit}"
    if not folder.is_dir():
        archive = subprocess.run(["git", "archive", commit, "--", *SOURCES], cwd=ROOT, check=True, capture_output=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
    return folder


def intents(card: Card, data: Path) -> Dataset:
    """Returns the rows of an intent agent. Raises `SystemExit` if they are not those of `model.json`."""
    from bench.train_intents import RECIPES

    found = RECIPES[card.name].rows(data)
    _check_named(card, [one.digest for one in found.sources])
    (given,) = card.input_schema["properties"]
    rows = [
        DatasetRow(f"{number}", {given: row.text}, row.label, f"{number}")
        for number, row in enumerate((*found.own_rows, *found.other_rows))
    ]
    return Dataset.build(
        ", ".join(one.name for one in found.sources), card.name, "", found.sources[0].licence, (), {"train": rows}
    )


def sets(card: Card, data: Path, work: Path) -> Iterator[Dataset]:
    """Returns the data sets of an agent's trainings."""
    if card.name in INTENTS:
        yield intents(card, data)
        return
    found = [made(one, data, work) for one in MADE[card.name]]
    if card.name == "entailment":
        rows = [
            [LabelledText(row.input["claim"], row.output["label"], row.input["evidence"]) for row in one.rows["train"]]
            for one in found
        ]
        _check_named(card, [labelled_texts_digest(each) for each in rows])
    yield from found


def _check_named(card: Card, digests: Sequence[str]) -> None:
    """Raises `SystemExit` if a committee was trained on other rows."""
    named = [one.digest for one in EncoderSummary.model_validate_json(card.read(card.data)).data]
    if named != list(digests):
        raise SystemExit(f"{card.name} was trained on {', '.join(named)}, and these are {', '.join(digests)}")


def write(card: Card, found: Iterator[Dataset]) -> Path:
    """Writes the record of an agent, of all of its data sets."""
    assert card.folder is not None
    folder, before = card.folder / (card.adapter or ""), None
    for one in found:
        provenance.write_provenance(card, one, folder, before)
        before = provenance.read_provenance(card, folder)
    return folder / PROVENANCE_FILE


def main() -> None:
    """Writes the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", nargs="*", metavar="AGENT", help="agents; default: all")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the public sets")
    parser.add_argument("--work", type=Path, help="the folder of the data sets; existing ones are reused")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.agents or sorted((*MADE, *INTENTS)):
            path = write(
                card := Card.load(ROOT / "agents" / name), sets(card, given.data, given.work or Path(temporary))
            )
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
