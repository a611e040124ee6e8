"""Effects that a request allows: sentences that ask for one, constants that occur in it, and the number of calls."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.events import Usage
from orchestra.router.capabilities import Capabilities
from orchestra.router.constants import RequestIndex
from orchestra.router.effects import further_calls
from orchestra.router.plan import CONFIRM_NODE, build_plan, to_workflow
from orchestra.router.plan_cache import CachedPlanError, build_entry, context_digest, fit_cached_plan
from orchestra.router.plan_grammar import NoValidStepError, plan_grammar, step_grammar
from orchestra.router.plan_syntax import parse_plan, parse_steps
from orchestra.router.planner import PlanNotFound, PlanRequest, start
from orchestra.router.sentences import Mood, split_sentences
from orchestra.router.validation import validate_line
from tests.agents.test_evidence_grammar import accepts
from tests.engine.attacks import ASKS, NAMES, NOTHING, NUMBERS, TWICE, WORDS
from tests.engine.stage import record, tool
from tests.router.sample_capabilities import walked

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
PAY = tool("pay", record(to=TEXT, amount=NUMBER), TEXT, "once")
EMAIL = tool("email", record(to=TEXT), TEXT, "once")
ALARM = tool("alarm", record(state={"enum": ["on", "off"]}, hour={"enum": [6, 7, 8]}), TEXT, "once")
MAIL = tool("mail", record(people={"type": "array", "items": TEXT}), TEXT, "once")
BOOK = tool("book", record(day={"type": "string", "format": "date"}), TEXT, "once")
LOUD = tool("loud", record(text=TEXT), TEXT)


def offer(request: str, *tools: Any, literals: bool = False, confirm: bool = False) -> Capabilities:
    made = Capabilities.of(tools or (PAY, LOUD), {"request": TEXT, "people": {"type": "array", "items": TEXT}})
    return Capabilities(
        **{**made.__dict__, "request_index": None if literals else RequestIndex(request), "confirm_effects": confirm}
    )


def codes(request: str, *lines: str, tools: tuple[Any, ...] = (), literals: bool = False) -> list[str]:
    """Error codes of the last of these lines."""
    steps = parse_steps(lines)
    return [fault.code for fault in validate_line(steps[-1], offer(request, *tools, literals=literals), steps[:-1])]


PAID = 's1 = pay(to="Bob", amount=5)'


ASKING = ("Pay {a} what", "Pay {n}", "Pay {a} -", "Pay {a} between")
"""Beginnings of requests that ask for an effect without enough detail."""


@pytest.mark.parametrize("text", [one for one in NOTHING if not one.startswith(ASKING)])
def test_effects_question_negation_condition_report_ask_for_none(text: str) -> None:
    request = text.format(a="Bob", b="Ann", n=5, m=7, w="five")
    assert codes(request, PAID) == ["R028"]
    assert codes(request, PAID, literals=True) == []
    with pytest.raises(NoValidStepError):
        step_grammar(offer(request, PAY))
    _, wanted = start(PlanRequest(request, offer(request, PAY)))
    assert isinstance(wanted, PlanNotFound)
    assert wanted.rejections[0].code == "R028"


QUOTING = 'Tell Bob "I can\'t, or should I?": 5 euros.'


@pytest.mark.parametrize("text", [*ASKS, QUOTING, "My name is Ann. Pay Bob 5 euros.", "Zahle an Bob 5 Euro."])
def test_effects_command_asks_for_effect(text: str) -> None:
    assert codes(text.format(a="Bob", b="Ann", n=5, m=7, w="five"), PAID) == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('s1 = pay(to="Bob", amount=555)', "R026"),
        ('s1 = pay(to="Bob", amount=-5)', "R026"),
        ('s1 = pay(to="Bob", amount=5.5)', "R026"),
        ('s1 = pay(to="Bo", amount=5)', "R026"),
        ('s1 = pay(to="Mallory", amount=5)', "R026"),
        ('s1 = pay(to="", amount=5)', "R026"),
        ('s1 = [pay(to="Bob", amount=x) for x in [5, 5]]', "R027"),
        ('s1 = [pay(to=x, amount=5) for x in ["Bob", "Bob"]]', "R027"),
    ],
)
def test_effects_unstated_constant_is_refused_and_not_in_grammar(line: str, code: str) -> None:
    assert codes("Pay Bob 5 euros", line) == [code]
    assert not accepts(step_grammar(offer("Pay Bob 5 euros")), line)
    assert codes("Pay Bob 5 euros", line, literals=True) == []


WORTH: dict[str, Fraction] = {
    **dict.fromkeys(("{}", "{}.00", "€{}", "{} EUR", "word"), Fraction(1)),
    "-{}": Fraction(-1),
    "{}k": Fraction(1000),
    "{} million": Fraction(10**6),
    "{} cents": Fraction(1, 100),
}
"""Factor of a number's digits by its notation. In other notations its value is uncertain."""
UNCERTAIN = ("{} dozen", "- {}", "minus {}", "0{}", "{}-9", "{}/9", "{}:30", "({})", "1.{}34")


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from((*WORTH, *UNCERTAIN, "{}%", "{}.5")),
    st.sampled_from(NUMBERS),
    st.sampled_from((*NUMBERS, 0.05, 0.5, 0.02, 5000, 60, 5_000_000, 5.5, -5, -7)),
)
def test_effects_numbers_compare_by_value_sign_scale_currency(form: str, written: int, stated: float) -> None:
    said = WORDS[written] if form == "word" else form.format(written)
    allowed = {written * WORTH[form]} if form in WORTH else set()
    if form == "{}%":
        allowed = {Fraction(written), Fraction(written, 100)}
    elif form == "{}.5":
        allowed = {written + Fraction(1, 2)}
    value = Fraction(Decimal(str(stated)))
    assert bool(RequestIndex(f"Pay Bob {said} now").find_number(value)) is (value in allowed)


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="ab1. ,-'@/\"€5k", max_size=20), st.text(alphabet="ab15.@- ", min_size=1, max_size=6))
def test_effects_text_occurs_as_whole_words(around: str, value: str) -> None:
    request = f"Pay {around}{value}{around} now"
    for begin, end in RequestIndex(request).find_text(value):
        assert not request[begin - 1].isalnum()
        assert not request[end].isalnum()


@pytest.mark.parametrize(
    ("request_", "lines", "may"),
    [
        ("Pay Bob 5 euros and Ann 7 euros.", ['s2 = pay(to="Ann", amount=7)'], True),
        ("Pay Bob 5 euros. Pay Ann 7 euros.", ['s2 = pay(to="Ann", amount=7)'], True),
        ("Pay Bob 5 euros. Pay Bob 5 euros.", ['s2 = pay(s1, to="Bob", amount=5)'], True),
        ("Pay Bob 5 euros, Ann 7 euros and Carl 9 euros.",
        ['s2 = pay(to="Ann", amount=7)', 's3 = pay(to="Carl", amount=9)'], True),
        ("Pay Bob 5 euros", ['s2 = pay(s1, to="Bob", amount=5)'], False),
        ("Pay Bob 5 euros and Ann 7 euros.", ['s2 = pay(to="Bob", amount=7)'], False),
        ("Pay Bob 5 euros; Ann has 7 cats.", ['s2 = pay(to="Ann", amount=7)'], False),
        ("Pay Bob 5 euros. Ann owes me 7.", ['s2 = pay(to="Ann", amount=7)'], False),
        ("Pay Bob 5 euros and Ann and Carl 9 euros.", ['s2 = pay(to="Ann", amount=9)'], False),
        ("pay Bob 5 and book 7", ['s2 = pay(to="book", amount=7)'], False),
        ("Pay Bob 5 euros and Ann 7 euros.", ['s2 = pay(to="Ann", amount=7)', 's3 = pay(s2, to="Ann", amount=7)'],
        False),
        ("Pay Bob 5 euros and Ann 7 euros.", ["s2 = [pay(to=x, amount=7) for x in input.people]"], False),
    ],
)  # fmt: skip
def test_effects_second_call_needs_parallel_mention(request_: str, lines: list[str], may: bool) -> None:
    assert codes(request_, PAID, *lines) == ([] if may else ["R027"])


@pytest.mark.parametrize("text", TWICE)
def test_effects_grammar_allows_only_requested_further_call(text: str) -> None:
    request = text.format(a="Bob", b="Ann", n=5, m=7)
    steps = parse_steps([PAID])
    assert [str(one) for one in further_calls(steps, offer(request).by_name["pay"], RequestIndex(request))] == [
        's1 = pay(to="Ann", amount=7)'
    ]
    grammar = step_grammar(offer(request), steps)
    assert accepts(grammar, '\ns2 = pay(to="Ann", amount=7)\nreturn s1, s2')
    assert not accepts(grammar, '\ns2 = pay(to="Bob", amount=7)\nreturn s1, s2')


@pytest.mark.parametrize("seed", range(6))
def test_effects_grammar_output_passes_validation(seed: int) -> None:
    chance = Random(seed)
    for _ in range(8):
        (a, b), (n, m) = chance.sample(NAMES, 2), chance.sample(NUMBERS, 2)
        request = chance.choice((*ASKS, *TWICE)).format(a=a, b=b, n=n, m=m, w=WORDS[n])
        given_ = offer(request, PAY, MAIL, ALARM)
        written = walked(step_grammar(given_), chance)
        if written is None:
            continue
        line = written.splitlines()[0]
        assert validate_line(parse_steps([line])[0], given_, []) == [] if " = " in line else line


@pytest.mark.parametrize(
    ("request_", "line", "found"),
    [
        ("Switch the alarm on at 7.", 's1 = alarm(state="on", hour=7)', []),
        ("Switch the alarm on at 7.", 's1 = alarm(state="off", hour=7)', ["R026"]),
        ("Switch the alarm on at 7.", 's1 = alarm(state="on", hour=8)', ["R026"]),
        ("Set the alarm for 7.", 's1 = alarm(state="on", hour=7)', []),
        ("Mail Bob and Ann.", 's1 = mail(people=["Bob"])', []),
        ("Mail Bob and Ann.", 's1 = mail(people=["Bob", "Ann"])', ["R026"]),
        ("Book it on 5 December 2026.", 's1 = book(day="2026-12-05")', []),
        ("Book it on 5 December 2026.", 's1 = book(day="2026-12-06")', ["R026"]),
        ("Book it on 3/4/2026.", 's1 = book(day="2026-04-03")', ["R026"]),
    ],
)
def test_effects_enums_lists_and_dates(request_: str, line: str, found: list[str]) -> None:
    name = line.split(" = ")[1].partition("(")[0]
    tools = (LOUD, *(one for one in (ALARM, MAIL, BOOK) if one.name == name))
    assert codes(request_, line, tools=tools) == found
    assert accepts(step_grammar(offer(request_, *tools)), line) is (not found)


@pytest.mark.parametrize(
    ("request_", "found"),
    [("Pay Bob 5 euros", []), ("Email Bob the 5 euros", ["R029"]), ("Give Bob 5 euros", ["R029"])],
)
def test_effects_several_tools_request_must_name_one(request_: str, found: list[str]) -> None:
    assert codes(request_, PAID, tools=(PAY, EMAIL)) == found
    assert codes(request_, PAID, tools=(PAY,)) == []


@pytest.mark.parametrize("request_", ["Pay Bob 5 euros", "  Pay   Bob 5\neuros "])
def test_plan_cache_with_effects_serves_identical_request(request_: str) -> None:
    assert str(_recalled(request_)) == f"{PAID}\nreturn s1"


OTHERS = (
    "Pay Bob 5 euros?",
    "Pay Bob 5 euros.",
    "pay Bob 5 euros",
    "Pay Ann 5 euros",
    "Pay Bob 7 euros",
    "Pay Not 5 euros",
)


@pytest.mark.parametrize("request_", [*OTHERS, "Pay Bob -5 euros"])
@pytest.mark.parametrize("literals", [True, False])
def test_plan_cache_with_effects_serves_no_other_request(request_: str, literals: bool) -> None:
    with pytest.raises(CachedPlanError):
        _recalled(request_, literals=literals)


def _recalled(request: str, *, literals: bool = False) -> Any:
    given_ = offer(request, literals=literals)
    of, made = context_digest(given_, "router"), build_plan(parse_plan(f"{PAID}\nreturn s1"))
    assert made is not None
    return fit_cached_plan(build_entry(made, "Pay Bob 5 euros", of, Usage()), request, given_, of)[0]


def test_plan_with_effects_asks_for_confirmation() -> None:
    request = "Pay Bob 5 euros and Ann 7 euros."
    first, each = 's1 = loud(text="Bob")', "s3 = [pay(to=x, amount=7) for x in input.people]"
    made = build_plan(parse_plan("\n".join([first, 's2 = pay(to="Bob", amount=5)', each, "return s1, s2, s3"])))
    assert made is not None
    nodes = to_workflow(made, offer(request, confirm=True), "plan").model_dump(mode="json", by_alias=True)["nodes"]
    assert nodes[CONFIRM_NODE]["options"] == ["yes", "no"]
    assert 'pay(to="Bob", amount=5)' in nodes[CONFIRM_NODE]["ask"]
    assert [name for name, node in nodes.items() if node.get("when")] == ["s2", "s3"]
    assert CONFIRM_NODE not in to_workflow(made, offer(request), "plan").nodes
    pure = build_plan(parse_plan(f"{first}\nreturn s1"))
    assert pure is not None
    assert CONFIRM_NODE not in to_workflow(pure, offer(request, confirm=True), "plan").nodes


def test_plan_grammar_effects_only_constants_of_request() -> None:
    grammar = plan_grammar(offer("Pay Bob 5 euros", PAY))
    assert accepts(grammar, f"{PAID}\nreturn s1")
    assert not accepts(grammar, 's1 = pay(to="Bob", amount=50)\nreturn s1')


@pytest.mark.parametrize("text", ["on 12 May 2026", "on  12  May\n2026", 'for "12 or 2026 apples"'])
def test_effects_numbers_in_dates_and_quotes_are_no_amounts(text: str) -> None:
    found = RequestIndex(f"Pay Bob  5 euros {text}")
    assert [value for value in (5, 12, 2026) if found.find_number(Fraction(value))] == [5]


def test_sentences_quoted_words_are_content_except_whole_request() -> None:
    assert [one.mood for one in split_sentences('Tell Bob "do not come".')] == [Mood.COMMAND]
    assert [one.mood for one in split_sentences('"Do not pay Bob."')] == [Mood.NEGATION]
    assert [one.mood for one in split_sentences('"Not" "Bob"')] == [Mood.STATEMENT]
