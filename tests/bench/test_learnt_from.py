"""Provenance records of the packaged agents: evaluation on training rows is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.learnt_from import INTENTS, MADE
from bench.written_rows import as_test, folder_of, passages, problems
from orchestra.agents.card import Card
from orchestra.learn.data import provenance
from orchestra.learn.evaluation.rows import read_evaluation_set
from orchestra.learn.promotion.promotion import PROVENANCE_FILE

ROOT = Path(__file__).resolve().parents[2]
EVALUATIONS = ROOT / "bench" / "evaluations"
ROWS = {"passages": passages, "problems": problems}
UNRECORDED = {"router"}
"""The generator of its first sets was not kept."""
COPIES = {"passage_reader": "extractive_reader"}
"""Agents with the weights of another one."""
COUNTED = {"passage_ranker"}
"""Agents without training: they compare encodings, less the mean encoding of unrelated sentences."""


def card_of(name: str) -> Card:
    return Card.load(ROOT / "agents" / name)


def learning() -> list[str]:
    """Returns the agents with weights of their own."""
    return [
        folder.name
        for folder in sorted((ROOT / "agents").iterdir())
        if (folder / "model.json").exists() or (folder / "adapter").exists()
    ]


def test_packaged_agents_have_provenance_record() -> None:
    assert set(learning()) == {*MADE, *INTENTS} | UNRECORDED | COPIES.keys() | COUNTED


@pytest.mark.parametrize("name", COPIES)
def test_copied_weights_equal_their_original(name: str) -> None:
    copied, original = ROOT / "agents" / name, ROOT / "agents" / COPIES[name]
    assert (copied / "spans.npz").read_bytes() == (original / "spans.npz").read_bytes()


@pytest.mark.parametrize("name", sorted({*MADE, *INTENTS}))
def test_provenance_record_matches_weights_and_is_small(name: str) -> None:
    card = card_of(name)
    assert card.folder is not None
    folder = card.folder / (card.adapter or "")
    found = provenance.read_provenance(card, folder)
    assert found is not None, "it is about other weights: python -m bench.learnt_from"
    assert found.train.count >= 3_000
    assert len(names := found.data.split(", ")) == len(set(names)), "a set of several trainings is named once"
    assert (folder / PROVENANCE_FILE).stat().st_size < 250_000


@pytest.mark.parametrize("name", sorted({*MADE} - {"entailment", "deductive_calculator"}))
def test_provenance_last_data_set_matches_agent_files(name: str) -> None:
    """Committees have a digest of texts, which `bench.learnt_from` compares."""
    folder = ROOT / "agents" / name
    if (manifest := folder / "adapter" / "manifest.json").exists():
        assert json.loads(manifest.read_text())["data"].split()[-1].startswith(MADE[name][-1].digest)
    elif named := json.loads((folder / "model.json").read_text()).get("data"):
        assert [one["digest"][:8] for one in named] == [one.digest for one in MADE[name]]


@pytest.mark.parametrize(("name", "kind"), [("extractive_reader", "passages"), ("generative_calculator", "problems")])
def test_provenance_detects_training_not_evaluation_rows(name: str, kind: str, tmp_path: Path) -> None:
    read = ROWS[kind]
    for place, many in ((folder_of(kind), True), (EVALUATIONS / f"{kind}.txt", False)):
        files = sorted(place.glob("*.txt")) if place.is_dir() else [place]
        path = tmp_path / "rows.jsonl"
        path.write_bytes(as_test(row for file in files for row in read(file)))
        found = provenance.find_training_overlap(card_of(name), read_evaluation_set(path), path)
        assert any(one.is_significant for one in found) is many
