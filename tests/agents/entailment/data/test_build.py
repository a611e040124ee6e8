"""The data set of the agent `entailment`: pairs, and edits that determine their labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from agents.entailment.data.build import edited, made, pairs_of

CLAIM = "Ann Lee won the first race in Rome on 3 May 1,954 times."
EVIDENCE = "In Rome, Ann Lee beat Tom Fox. She won the first race there, and it is said that she had run 1,954 times."


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
