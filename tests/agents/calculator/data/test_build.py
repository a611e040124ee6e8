"""The calculator's data: expressions have the value of the answers, over the question's numbers; intact groups."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import pytest

from agents.calculator.data.build import renumbered
from agents.calculator.data.stories import Template, problems, stories, templates
from bench.gsm8k import KNOWN, Solved, drawn, last, numbers, solved, told
from orchestra.agents.card import Card
from orchestra.agents.output_parser import OutputParser, ParsedOutput
from orchestra.learn.data.dataset import DatasetRow
from orchestra.text.arithmetic import evaluate

ROOT = Path(__file__).resolve().parents[4]
CLIPS = "Mia sold 48 clips in April, and half as many in May. Every clip costs $3. How much did she get in both months?"
STEPS = """In May she sold 48/2 = <<48/2=24>>24 clips.
She sold 48+24 = <<48+24=72>>72 clips in both months.
She got $3*72 = $<<3*72=216>>216.
#### 216"""


def one(expression: str, question: str) -> Solved:
    return Solved(question, expression, evaluate(expression), 1)


def test_steps_become_one_expression() -> None:
    found = solved(CLIPS, STEPS, 216)
    assert found is not None
    assert (found.expression, found.steps) == ("3*(48+48/2)", 3)
    assert found.value == 216


@pytest.mark.parametrize(
    ("question", "steps", "answer"),
    [
        pytest.param(CLIPS, STEPS, 215, id="another value than the answer"),
        pytest.param(CLIPS, STEPS.replace("48/2=", "96/4="), 216, id="a number missing in the question"),
        pytest.param("A and 6 B, 2 of 3.", "<<2*3=6>>6, <<6-1=5>>5", 5, id="a result that is also in the question"),
        pytest.param(CLIPS, "She got a lot.", 216, id="no steps"),
        pytest.param(CLIPS, "<<import os=1>>", 1, id="no arithmetic"),
        pytest.param("7 and 2", "<<7//2=3>>3", 3, id="an operation that the agent does not write"),
    ],
)
def test_ambiguous_expressions_left_out(question: str, steps: str, answer: float) -> None:
    assert solved(question, steps, answer) is None


def test_last_step_becomes_problem() -> None:
    found = last(CLIPS, STEPS, 216)
    assert found is not None
    assert found.expression == "3*72"
    assert found.question.endswith("How much did she get in both months?")
    assert {Fraction(3), Fraction(72)} <= set(numbers(found.question))
    assert "48" not in found.question
    assert "=" not in found.question
    assert last(CLIPS, STEPS.splitlines()[0], 24) is None, "one step has none before it"


def test_drawn_numbers_in_question_and_expression() -> None:
    found = drawn(
        one("(40-16)/3", "Of 40 pears 16 are bad; 3 people share the rest. How many does each get?"), random.Random(1)
    )
    assert found is not None
    assert found.value == evaluate(found.expression) > 0
    assert found.value.denominator == 1, "it was whole before"
    assert told(found.expression, numbers(found.question))
    assert found.expression != "(40-16)/3"


@pytest.mark.parametrize("question", ["20% of 80", "8 of 20, and 20 more", "one half of 7/20"])
def test_ambiguous_numbers_not_redrawn(question: str) -> None:
    assert drawn(one("20*80/100", question), random.Random(1)) is None


def test_templates_give_whole_answers_over_stated_numbers() -> None:
    chance = random.Random(5)
    for template in templates():
        made = [problem for _ in range(6) for problem in problems(template, chance)]
        assert made, template.body
        for problem in made:
            value = evaluate(problem.expression)
            assert value > 0, problem
            assert value.denominator == 1, problem
            assert told(problem.expression, numbers(problem.question)), problem  # "twice" is a 2
            assert not set("[]{}|") & set(problem.question), problem
            assert problem.question.endswith("?"), problem


def test_story_question_determines_expression() -> None:
    template = Template(
        ("x>y",), "{A} has {x} {o} and {B} has {y}.", (("How many {o} in all?", "x+y"), ("How many more?", "x-y"))
    )
    made = problems(template, random.Random(2))
    assert {problem.expression[1:-1].strip("0123456789") for problem in made} == {"+", "-"}
    assert len({problem.question.split(".")[0] for problem in made if not problem.question.startswith("If")}) <= 1


def test_stories_are_deterministic() -> None:
    assert list(stories(40, 1)) == list(stories(40, 1)) != list(stories(40, 2))


def test_calculator_rows_are_valid_outputs() -> None:
    card = Card.load(ROOT / "agents" / "generative_calculator")
    reader = OutputParser(card)
    for _, problem in stories(300, 4):
        found = reader.parse(problem.expression)
        assert isinstance(found, ParsedOutput), problem
        assert found.value == {"expression": problem.expression, "answer": evaluate(problem.expression)}
    assert not isinstance(reader.parse("48 clips"), ParsedOutput)
    assert max(KNOWN) == 1000


def test_renumbered_problems_keep_group_and_value() -> None:
    ours = DatasetRow(
        "written-a-2",
        {"question": "Ann has 31 pears and sells 14 of them. How many are left?"},
        {"expression": "31-14"},
        "g",
    )
    unsure = DatasetRow(
        "written-a-4", {"question": "Ann has 12 pears and sells 12 plums. How many has she?"}, {"expression": "12"}, "g"
    )
    (found,) = renumbered([ours, unsure], random.Random(0))

    assert found.group == "g"
    assert found.id != ours.id
    left, right = str(found.output["expression"]).split("-")
    assert found.input["question"] == f"Ann has {left} pears and sells {right} of them. How many are left?"
    assert (left, right) != ("31", "14")


def test_constants_allowed_and_not_redrawn() -> None:
    found = drawn(one("15*12", "A tablet costs 12 and drops 15 a month. What are a year's drops?"), random.Random(0))

    assert found is not None
    assert found.expression != "15*12"
    assert found.expression.endswith("*12")
    assert "costs 12 and" in found.question
    assert drawn(one("40/5", "Of 40 eggs 5 cats eat a fifth. How many?"), random.Random(0)) is None
    assert drawn(one("0+2", "Ann has 0 pears and gets 2. How many has she?"), random.Random(0)) is None
