"""Data sets from restricted runs: evaluation, certification and calibration use only cleared endpoints for them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from bench.learnt_from import upgrade_manifest
from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.core.labels import Label
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import (
    MANIFEST_FILE,
    Dataset,
    DatasetManifest,
    DatasetRow,
    DatasetSource,
    check_overwrite,
    dataset_label_of,
    read_manifest,
)
from orchestra.learn.evaluation.rows import read_evaluation_set
from tests.agents.inference.test_calibration import card as chooser
from tests.cli.shell import Shell
from tests.cli.stage import AGENT, GOOD, TEXT, Simulated, furnish
from tests.learn.promotion.test_promotion import adapter
from tests.unreachable import FLEET

COMMANDS = {
    "learn evaluate": ("learn", "evaluate", "answerer", "--data", "set"),
    "a candidate": ("learn", "evaluate", "answerer", "--data", "set", "--candidate", "new/adapter"),
    "learn combine": ("learn", "combine", "answerer", "--data", "set", "--checks", "quote,entailment(judge)"),
    "certify": ("certify", "answerer", "--data", "set", "--alpha", "0.3", "--delta", "0.3"),
    "one of its files": ("learn", "evaluate", "answerer", "--data", "set/test.jsonl"),
}
JUDGE = """\
schema: orchestra/v1
name: judge
description: Judges a claim.
input: {claim: str, evidence: str}
output: {p_supported: float | null, p_refute: float | null}
"""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    furnish(
        files={
            "configs/nowhere.yaml": FLEET,
            "agents/judge/agent.yaml": JUDGE,
            "agents/judge/prompt.md": "{{ claim }} {{ evidence }}\n",
        }
    )
    shell.opener = Simulated(lambda call: {"p_supported": 0.9, "p_refute": 0.0} if call.name == "judge" else GOOD)
    return shell


def collected(*labels: Label) -> None:
    rows = [DatasetRow(f"r{n}", {"question": f"q{n}", "context": TEXT}, GOOD, f"g{n}") for n in range(60)]
    sources = [DatasetSource("a file", "own"), *(DatasetSource("journal.db", "own", label=label) for label in labels)]
    card = Card.load(Path("agents/answerer"))
    Dataset.build("it", card.name, contract_digest(card), "own", sources, {"test": rows}).write(Path("set"))


def asked(shell: Shell, said: str = "") -> dict[str, set[Label]]:
    """The labels of the calls of each agent."""
    assert isinstance(shell.opener, Simulated)
    assert shell.opener.workers is not None, said
    found: dict[str, set[Label]] = {}
    for call in shell.opener.workers.calls:
        found.setdefault(call.name, set()).add(call.label)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_evaluation_calls_have_label_of_source_runs(shell: Shell, command: str) -> None:
    if "--candidate" in COMMANDS[command]:
        Path("agents/answerer/agent.yaml").write_text(AGENT + "adapter: adapter\n")
        adapter(Path("new/adapter"), "new")
    collected("internal", "restricted")
    said = shell(*COMMANDS[command])
    labels = asked(shell, said.err)
    assert labels, said.err
    assert set().union(*labels.values()) == {"restricted"}, labels
    assert command != "learn combine" or "judge" in labels, said.err


def test_calibration_calls_have_label_of_source_runs(shell: Shell) -> None:
    card = chooser(Path("agents/judge"))
    rows = [
        DatasetRow(f"r{n}", {"claim": f"c{n}", "evidence": "e"}, {"label": "supported"}, f"g{n}") for n in range(20)
    ]
    sources = [DatasetSource("journal.db", "own", label="restricted")]
    Dataset.build("it", "judge", contract_digest(card), "own", sources, {"tune": rows}).write(Path("set"))
    said = shell("learn", "calibrate", "judge", "--data", "set")
    assert asked(shell) == {"judge_uncalibrated": {"restricted"}}, said.err


def test_rows_without_label_use_default(shell: Shell) -> None:
    collected()
    assert shell(*COMMANDS["learn evaluate"]).code == 0
    assert set().union(*asked(shell).values()) == {"internal"}


def test_manifest_invalid_label_refused(shell: Shell) -> None:
    collected("restricted")
    file = Path("set") / MANIFEST_FILE
    file.write_text(file.read_text().replace('"restricted"', '"secret"'))
    said = shell(*COMMANDS["learn evaluate"])
    assert (said.code, "N001" in said.err) == (2, True), said.err


def test_dataset_has_strictest_source_label() -> None:
    assert msgspec.json.decode(json.dumps(manifest("public", "internal")), type=DatasetManifest).label == "internal"
    assert msgspec.json.decode(json.dumps(manifest()), type=DatasetManifest).label is None


def test_manifest_first_format_refused(tmp_path: Path) -> None:
    old = manifest("restricted") | {"format": "orchestra/dataset/v1"}
    old["parts"] = old.pop("splits")
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(old))
    for read in (Dataset.load, check_overwrite, lambda folder: dataset_label_of(folder / "test.jsonl")):
        with pytest.raises(
            InputError, match="has the format orchestra/dataset/v1, and this Orchestra reads orchestra/dataset/v2"
        ) as caught:
            read(tmp_path)
        assert caught.value.code == "N001"
    old["sources"] = [{"name": "x", "licence": "own", "made": "by hand", "label": "restricted"}]
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(old))
    upgrade_manifest(tmp_path)
    assert dataset_label_of(tmp_path / "test.jsonl") is None, "it has no such split"
    upgrade_manifest(tmp_path)
    assert read_manifest(tmp_path).sources[0].description == "by hand"
    assert read_manifest(tmp_path).label == "restricted"


def manifest(*labels: str) -> dict[str, object]:
    sources = [{"name": "x", "licence": "own", "label": label} for label in labels]
    return {
        "name": "it",
        "agent": "a",
        "contract": "",
        "digest": "",
        "licence": "own",
        "sources": sources,
        "splits": {},
    }


def test_file_outside_dataset_has_no_label(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text('{"format": "something else"}')
    (tmp_path / "test.jsonl").write_text('{"id": "1", "input": {}, "output": "x"}\n')
    assert read_evaluation_set(tmp_path / "test.jsonl").label is None
