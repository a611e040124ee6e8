"""Tests of the compilation of checks: their text and their judges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra.core.errors import InputError
from orchestra.core.outcomes import Evidence, ValueOutcome
from tests.engine.stage import play, program
from tests.engine.test_checks import WITH, chance, read


@pytest.mark.parametrize(
    ("checks", "code", "says"),
    [
        ('["entailment("]', "L072", "is not a check"),
        ('["quote &"]', "L072", "expected a check at the end"),
        ('["quote(x)"]', "L072", "takes no argument"),
        ('["quote | quotes"]', "L111", "there is no check 'quotes'"),
        ("[rederive]", "L070", "needs the name of an agent"),
        ('["entailment(missing)"]', "L070", "needs the agent 'missing'"),
        ('["entailment(second)"]', "L071", "it has no input 'claim'"),
        ('["rederive(entailment)"]', "L071", "it requires the input 'claim'"),
        ('["agree(1)"]', "L074", "from 2 to 16"),
        ('["agree(many)"]', "L074", "from 2 to 16"),
    ],
)
def test_compile_invalid_checks_refused(checks: str, code: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read(checks, {})
    assert caught.value.code == code
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("checks", "otherwise", "says"),
    [
        ("[quote]", "[back_off]", "needs the check `entailment` itself"),
        ('["quote | entailment"]', "[back_off, abstain]", "needs the check `entailment` itself"),
        ("[entailment, agree]", "[back_off]", "`agree` is about whole values"),
        ("[entailment]", "[retry, back_off, abstain]", "so `retry` would never happen"),
        ("[entailment]", "[back_off, escalate]", "so `escalate` would never happen"),
    ],
)
def test_compile_invalid_back_off_refused(checks: str, otherwise: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read(checks, {}, f"otherwise: {otherwise}")
    assert caught.value.code == "L075"
    assert says in caught.value.message


def test_agree_without_agent_refused() -> None:
    with pytest.raises(InputError) as caught:
        program("output: ${a}\nnodes:\n  a: {tool: shout, with: {text: x}, checks: [agree]}", WITH)
    assert caught.value.code == "L073"


def test_card_check_includes_its_judge() -> None:
    careful = replace(WITH.agents["reader"], checks=("quote", "entailment"), evidence="context", otherwise=("abstain",))
    catalog = replace(WITH, agents={**WITH.agents, "reader": careful})
    text = 'output: ${a}\nnodes:\n  a: {agent: reader, with: {question: when, context: "completed in 1889"}}'
    played = play(text, answers={"entailment": chance(0.9)}, catalog=catalog)
    assert isinstance(played.outcome, ValueOutcome)
    assert Evidence("entailment", "completed in 1889", "", 0, 17, "answer") in played.outcome.evidence
    with pytest.raises(InputError) as caught:
        program(text, replace(catalog, agents={"reader": careful}))
    assert caught.value.code == "L070"
    assert "the card of reader" in caught.value.why
