"""Edits of claims: each changes the meaning of the claim, keeps its other words, and is deterministic."""

from __future__ import annotations

import random

import pytest

from bench.claim_edits import OPPOSITES, Edit, edits
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


def test_quarters_select_misleading_overlap() -> None:
    every = [Judged(n % 2 == 0, n / 16, 0.5, True) for n in range(16)]
    low, high = quarters(every)

    assert [one.overlap for one in low] == [0.0, 2 / 16]
    assert [one.overlap for one in high] == [13 / 16, 15 / 16]
    assert overlap("the red kite flies", "A red kite.") == pytest.approx(2 / 3)
