"""Edits of claims: each changes the meaning of the claim, keeps its other words, and is deterministic."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from bench.claim_edits import OPPOSITES, Edit, edits
from bench.entailment_data import edited, made, pairs_of
from bench.quarters import Judged, overlap, quarters

CLAIM = "Ann Lee won the first race in Rome on 3 May 1,954 times."
EVIDENCE = "In Rome, Ann Lee beat Tom Fox. She won the first race there, and it is said that she had run 1,954 times."


def found(seed: int) -> dict[str, Edit]:
    return {edit.kind: edit for edit in edits(CLAIM, EVIDENCE, ["Ada Poe"], random.Random(seed))}


@pytest.mark.parametrize("seed", range(20))
def test_edit_changes_only_its_piece(seed: int) -> None:
    kinds = found(seed)

    assert {"number", "name", "opposite"} <= kinds.keys()
    for edit in kinds.values():
        assert edit.old in CLAIM
        assert edit.new != edit.old
        assert edit.applied(CLAIM) == CLAIM.replace(edit.old, edit.new, 1)
    assert kinds == found(seed)


def test_edit_number_keeps_form() -> None:
    (edit,) = edits("It has 1,954 rooms", "", [], random.Random(1))
    assert "," in edit.new


def test_edit_piece_is_whole_word() -> None:
    assert Edit("number", "19", "20").applied("19 of 1954") == "20 of 1954"
    assert not Edit("number", "19", "20").stands_in("1954")


def test_opposites_are_symmetric() -> None:
    assert all(len(set(pair.split("/"))) == 2 for pair in OPPOSITES)


def sets(folder: Path) -> Path:
    rows: dict[str, list[tuple[str, str | None]]] = {
        "begin": [
            ("supported", "Fully attributable"),
            ("unsupported", "Not fully attributable"),
            ("unsupported", "Generic"),
        ],
        "factcheckgpt": [("support", None), ("refute", None), ("partial", None)],
    }
    for name, labels in rows.items():
        (folder / name).mkdir()
        lines = [
            {
                "id": f"{name}-{n}",
                "input": {
                    "claim": CLAIM,
                    "evidence": (
                        f"{EVIDENCE} It was said in {name} {n}, on a long and cold evening beside the harbour there."
                    ),
                },
                "expected": {"label": label, "original": original},
            }
            for n, (label, original) in enumerate(labels)
        ]
        (folder / name / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


def test_pairs_map_labels_and_skip_generic_replies(tmp_path: Path) -> None:
    folder = sets(tmp_path)
    labels = {
        name: [pair.label for pair in pairs_of(name, folder / name / "train.jsonl")]
        for name in ("begin", "factcheckgpt")
    }

    assert labels == {
        "begin": ["supported", "not stated"],
        "factcheckgpt": ["supported", "contradicted", "contradicted", "not stated"],
    }


def test_edited_pair_labels(tmp_path: Path) -> None:
    folder = sets(tmp_path)
    (true, _) = pairs_of("begin", folder / "begin" / "train.jsonl")
    more = list(edited([replace(true, id=f"begin-{n}") for n in range(30)], 1.0, ["Ada Poe"]))

    assert {pair.id.rpartition("-")[2] for pair in more} == {"claim", "evidence", "both", "without"}
    for pair in more:
        changed = (pair.claim != CLAIM, not pair.evidence.startswith(EVIDENCE))
        how = pair.id.rpartition("-")[2]
        assert changed == {"claim": (True, False), "both": (True, True)}.get(how, (False, True))
        assert pair.label == {"both": "supported", "without": "not stated"}.get(how, "contradicted")


def test_edits_of_held_out_rows_not_in_training(tmp_path: Path) -> None:
    folder = sets(tmp_path)
    plain, held = made(folder), made(folder, held_edits=True)

    assert plain.rows["train"] == held.rows["train"]
    groups = {row.group for row in held.rows["tune"]}
    assert not groups & {row.group for row in held.rows["train"]}


def test_quarters_select_misleading_overlap() -> None:
    every = [Judged(n % 2 == 0, n / 16, 0.5, True) for n in range(16)]
    low, high = quarters(every)

    assert [one.overlap for one in low] == [0.0, 2 / 16]
    assert [one.overlap for one in high] == [13 / 16, 15 / 16]
    assert overlap("the red kite flies", "A red kite.") == pytest.approx(2 / 3)
