"""Tests ensembles: the combined answer, and the conditions for members."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.computed_fields import ComputedField, OutputForm
from orchestra.agents.ensemble import check_members, join_members
from orchestra.agents.ensemble_voting import EnsembleAnswer, pool_answers
from orchestra.agents.registry import Registry
from orchestra.core.errors import InputError
from orchestra.verification.model_checks import is_same_agent

TYPES = "input: {question: str, context: str}\noutput: {answer: Quote | null}\n"
ENSEMBLE = f"name: both\nkind: ensemble\nmembers: [first, second]\n{TYPES}"


def member(name: str, more: str = "", types: str = TYPES) -> str:
    return f"name: {name}\n{types}{more}"


def folder(place: Path, **cards: str) -> Path:
    for name, text in cards.items():
        (place / name).mkdir(parents=True)
        (place / name / "agent.yaml").write_text(text)
        (place / name / "prompt.md").write_text(f"{name}: {{{{ question }}}}")
    return place


def load(place: Path, **cards: str) -> Registry:
    return Registry.load([folder(place, **cards)], builtin=False)


@pytest.mark.parametrize(
    ("answers", "value", "confidence"),
    [
        ([("a", 0.6), ("b", 0.9)], "b", 0.45),  # different answers: the more confident one
        ([("a", 0.6), ("a", 0.9)], "a", 0.75),  # equal answers: the mean
        ([("a", 0.5), ("b", 0.9), ("a", 0.6)], "a", 1.1 / 3),  # two answers outweigh a more confident third
        ([("a", 0.6), ("b", 0.6)], "a", 0.3),  # equal confidence: the first
        ([("a", None), ("b", 0.2)], "b", 0.1),  # a member without confidence counts nothing
        ([("a", None), ("b", None)], "a", None),
        ([("a", math.nan), ("b", 0.9)], "b", 0.45),  # a confidence that is not a number counts nothing either
        ([("b", 0.9), ("a", math.inf)], "b", 0.45),
        ([("a", math.nan), ("b", None)], "a", None),
        ([(None, 0.7), ("b", 0.6)], None, 0.35),  # no answer is an answer too
        ([("a", 0.0), ("b", 0.0)], "a", 0.0),
    ],
)
def test_ensemble_returns_likeliest_answer(answers: Any, value: Any, confidence: float | None) -> None:
    best = pool_answers([EnsembleAnswer({"answer": said}, sure) for said, sure in answers])
    assert best.value == {"answer": value}
    assert best.confidence == pytest.approx(confidence) if confidence is not None else best.confidence is None


@pytest.mark.parametrize(
    ("answers", "weights", "value", "confidence"),
    [
        ([("a", 0.8), ("b", 0.7)], (1, 1.3), "b", 0.7 * 1.3 / 2.3),
        ([("a", 0.8), ("b", 0.7)], (2.6, 2.6), "a", 0.4),
        ([("a", 0.8), ("a", 0.5)], (1, 3), "a", 2.3 / 4),
        ([("a", 0.8)], (1, 3), "a", 0.8),  # the other member was not called
    ],
)
def test_ensemble_weights_scale_members(answers: Any, weights: Any, value: str, confidence: float) -> None:
    best = pool_answers([EnsembleAnswer(said, sure) for said, sure in answers], weights)
    assert best.value == value
    assert best.confidence == pytest.approx(confidence)


def test_ensemble_compares_values_without_field_order() -> None:
    best = pool_answers(
        [EnsembleAnswer({"a": 1, "b": 2}, 0.4), EnsembleAnswer({"c": 3}, 0.5), EnsembleAnswer({"b": 2, "a": 1}, 0.4)]
    )
    assert best.value == {"a": 1, "b": 2}
    assert best.confidence == pytest.approx(0.8 / 3)


def test_ensemble_merges_equal_expressions_and_keeps_likeliest() -> None:
    fields = {"expression": {"type": "string"}, "answer": {"type": ["number", "null"]}}
    form = OutputForm.build({"type": "object", "properties": fields}, {"answer": ComputedField(value="expression")})

    def said(expression: str, sure: float) -> EnsembleAnswer:
        return EnsembleAnswer(form.fill({"expression": expression}, None), sure)

    answers = [said("5*4+9", 0.3), said("9+4*5", 0.4), said("5+4+9", 0.6), said("5/0", 0.1), said("6/0", 0.1)]
    best = pool_answers(answers, key=form.comparison_key)
    assert best.value == {"expression": "9+4*5", "answer": 29}
    assert best.confidence == pytest.approx(0.7 / 5)
    assert pool_answers(answers).value == {"expression": "5+4+9", "answer": 18}
    assert form.comparison_key(answers[3].value) != form.comparison_key(answers[4].value), (
        "what has no value is what it says"
    )


def test_ensemble_probability_is_at_most_one() -> None:
    assert pool_answers([EnsembleAnswer("a", 1.0)] * 3).confidence == 1.0


def test_ensemble_digest_covers_its_members(tmp_path: Path) -> None:
    registry = load(tmp_path / "a", both=ENSEMBLE, first=member("first"), second=member("second"))
    card = registry.card("both")
    assert [part.name for part in card.member_cards] == ["first", "second"]
    assert (card.is_trained, card.uses_model, card.contract.max_output) == (True, True, 512)
    other = load(tmp_path / "b", both=ENSEMBLE, first=member("first", "system: Otherwise.\n"), second=member("second"))
    assert other.card("both").digest != card.digest
    assert other.card("both").with_settings(checks=("schema",)).member_cards == other.card("both").member_cards


def test_stored_ensemble_keeps_its_members(tmp_path: Path) -> None:
    card = load(tmp_path, both=ENSEMBLE, first=member("first"), second=member("second")).card("both")
    folders = {part.name: part.folder for part in card.member_cards}
    assert Card.restore(card.dump(), card.folder, folders) == card
    assert [part.folder for part in Card.restore(card.dump()).member_cards] == [None, None]
    forged = card.dump().replace(b"first: {{", b"worst: {{")
    with pytest.raises(InputError) as caught:
        Card.restore(forged)
    assert caught.value.code == "A012"


def test_stored_ensemble_with_removed_member_is_refused(tmp_path: Path) -> None:
    import json

    card = load(tmp_path, both=ENSEMBLE, first=member("first"), second=member("second")).card("both")
    said = json.loads(card.dump())
    others: list[list[Any]] = [[], said["members"][:1], said["members"][::-1]]
    for members in others:
        with pytest.raises(InputError, match="it has other members") as caught:
            Card.restore(json.dumps({**said, "members": members}).encode())
        assert caught.value.code == "A012"


def test_stored_ensemble_with_incompatible_member_is_refused(tmp_path: Path) -> None:
    other = member("second", types=TYPES.replace("Quote | null", "str"))
    registry = load(tmp_path, first=member("first"), second=other, both=member("both"))
    card = registry.card("both").with_settings(kind="ensemble", members=("first", "second"))
    forged = card.with_members([registry.card("first"), registry.card("second")])
    with pytest.raises(InputError, match="second cannot be one of its members") as caught:
        check_members(Card.restore(forged.dump()))
    assert caught.value.code == "A012"


@pytest.mark.parametrize(
    ("cards", "code", "said"),
    [
        ({"both": ENSEMBLE, "first": member("first")}, "A019", "there is no agent 'second'"),
        ({"both": ENSEMBLE.replace("[first, second]", "[first]")}, "A024", "at least two other agents"),
        ({"both": ENSEMBLE.replace("[first, second]", "[first, first]")}, "A024", "at least two other agents"),
        ({"both": ENSEMBLE.replace("[first, second]", "[both, first]")}, "A024", "at least two other agents"),
        ({"both": ENSEMBLE + "adapter: adapter\n"}, "A024", "an ensemble has no such key; its members have it"),
        ({"both": ENSEMBLE + "weights: [1, 2, 3]\n"}, "A024", "there are 3 of them for 2 members"),
        ({"both": ENSEMBLE + "weights: [1, 0]\n"}, "A002", "greater than 0"),
        ({"both": member("both", "weights: [1, 2]\n")}, "A024", "weights: an agent of kind model"),
        ({"both": member("both", "enough: 0.9\n")}, "A024", "enough: an agent of kind model"),
        (
            {"both": ENSEMBLE + "max_output: 20\n"},
            "A024",
            "max_output: an ensemble has no such key; its members have it",
        ),
        ({"both": ENSEMBLE + "system: Read.\n"}, "A024", "system: an ensemble has no such key; its members have it"),
        ({"both": ENSEMBLE + "tools: [search]\n"}, "A018", "an agent of kind ensemble cannot call others"),
        ({"both": member("both", "members: [first, second]\n")}, "A024", "an agent of kind model has no members"),
        (
            {"both": ENSEMBLE, "first": member("first"), "second": member("second", "tools: [search]\n")},
            "A024",
            "it uses tools",
        ),
        (
            {"both": ENSEMBLE, "first": member("first"), "second": member("second", "label: public\n")},
            "A024",
            "data up to public",
        ),
        (
            {"both": ENSEMBLE, "first": member("first"), "second": member("second", "kind: python\n")},
            "A024",
            "kind python has no confidence",
        ),
        (
            {
                "both": ENSEMBLE,
                "first": member("first"),
                "second": member("second", types=TYPES.replace("Quote | null", "str")),
            },
            "A024",
            "its output is {answer: str}, and the ensemble's {answer: Quote | null}",
        ),
        (
            {
                "both": ENSEMBLE,
                "first": member("first"),
                "second": member("second", types=TYPES.replace("context: str", "context: int")),
            },
            "A024",
            "its input is {question: str, context: int}",
        ),
        (
            {
                "both": ENSEMBLE,
                "first": member("first"),
                "second": ENSEMBLE.replace("both", "second").replace("[first, second]", "[first, both]"),
            },
            "A024",
            "kind ensemble has no confidence",
        ),
    ],
)
def test_ensemble_invalid_member_is_reported_with_position(
    tmp_path: Path, cards: dict[str, str], code: str, said: str
) -> None:
    error = next(iter(load(tmp_path, **cards).broken.values()))
    assert error.code == code
    assert said in error.message
    assert error.location is not None
    assert error.location.file.endswith("agent.yaml")


def test_ensemble_member_error_is_reported_at_its_name(tmp_path: Path) -> None:
    text = ENSEMBLE.replace("[first, second]", "\n- first\n- second")
    with pytest.raises(InputError) as caught:
        load(tmp_path, both=text, first=member("first")).card("both")
    assert (caught.value.location and caught.value.location.line) == 5
    with pytest.raises(InputError) as caught:
        load(tmp_path / "b", both=text, first=member("first"), second=member("second", "tools: [search]\n")).card(
            "both"
        )
    assert (caught.value.location and caught.value.location.line) == 5


def test_ensemble_with_broken_member_reports_member_error(tmp_path: Path) -> None:
    registry = load(tmp_path, both=ENSEMBLE, first=member("first"), second=member("second", "colour: red\n"))
    with pytest.raises(InputError) as caught:
        registry.card("both")
    assert caught.value.message == "a card has no key 'colour'"
    assert registry.card("first").member_cards == ()


def test_ensemble_is_ready_if_all_members_are(tmp_path: Path) -> None:
    registry = load(
        tmp_path, both=ENSEMBLE, first=member("first"), second=member("second", "kind: encoder\nmodel: mpnet\n")
    )
    card = registry.card("both")
    assert (card.member_cards[1].is_trained, card.is_trained, card.uses_model) == (False, False, True)


def test_ensemble_members_may_differ_in_description(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        both=ENSEMBLE,
        first=member("first", "description: One.\n"),
        second=member("second", "description: Other.\n"),
    )
    assert registry.card("both").member_cards


def test_ensemble_prefers_members_of_its_folder(tmp_path: Path) -> None:
    own = folder(tmp_path / "own", second=member("second", "system: Of the project.\n"))
    packaged = folder(tmp_path / "packaged", both=ENSEMBLE, first=member("first"), second=member("second"))
    registry = Registry.load([own, packaged], builtin=False)
    assert registry.card("second").system == "Of the project."
    assert [part.system for part in registry.card("both").member_cards] == ["", ""]


def test_ensemble_member_is_no_independent_opinion(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        both=ENSEMBLE,
        first=member("first"),
        second=member("second", "system: More.\n"),
        third=member("third", "system: Else.\n"),
    )
    contracts = registry.agents
    assert is_same_agent(contracts["first"], contracts["both"])
    assert is_same_agent(contracts["both"], contracts["second"])
    assert not is_same_agent(contracts["third"], contracts["both"])
    assert join_members(registry.card("third"), registry.cards) is registry.card("third")
