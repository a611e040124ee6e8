"""Plans as small models write them without a grammar, and the repairs of those that stay unclear."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from orchestra.router.free_text_plans import rewrite_lines
from orchestra.router.plan_syntax import PlanAnswer, PlanReference, PlanStep, parse_line, parse_steps, split_lines
from orchestra.router.planner import PlanFound, PlannerQuestion, PlanNotFound, PlanRequest, advance, start
from orchestra.router.repair_examples import corrected_call
from tests.router.sample_capabilities import SEARCH, STR, contract, offer
from tests.router.test_plan_syntax import LINES

SEARCHED = "s1 = search(query=input.question, documents=input.documents)"
READ = "s2 = reader(question=input.question, context=s1[0].text)"
PLAN = f"{SEARCHED}\n{READ}\nreturn s2"
INPUTS = ("question", "documents")


def rewritten(text: str, *accepted: str) -> str:
    """Returns the lines of a reply after these lines."""
    return "\n".join(rewrite_lines([line for line in split_lines(text) if line.strip()], parse_steps(accepted), INPUTS))


@pytest.mark.parametrize(
    "text",
    [
        PLAN,
        "search(query=input.question, documents=input.documents)\n"
        "reader(question=input.question, context=s1[0].text)\nreturn s2",
        "passages = search(query=input.question, documents=input.documents)\n"
        "answer = reader(question=input.question, context=passages[0].text)\nreturn answer",
        "1. search(query=input.question, documents=input.documents)\n"
        "2. reader(question=input.question, context=s1[0].text)\n3. return s2",
        "- `s1 = search(query=input.question, documents=input.documents)`\n"
        "- `s2 = reader(question=input.question, context=s1[0].text)`\n- `return s2`",
        "Step 1: search(query=input.question, documents=input.documents)\n"
        "Step 2: reader(question=input.question, context=s1[0].text)\nreturn(s2)",
        "Here is the plan.\n"
        "s1 = search(query=input.question, documents=input.documents)  # the passages\n"
        "s2 = reader(question=input.question, context=s1[0].text);\nreturn s2\nI hope this helps!",
        "s1 = search(query=question, documents=documents)\n"
        "s2 = reader(question=question, context=s1[0].text)\nreturn s2.",
        '[{"tool": "search", "arguments": {"query": "input.question", "documents": "input.documents"}},\n'
        ' {"tool": "reader", "arguments": {"question": "input.question", "context": "s1[0].text"}}]\nreturn s2',
        '{"steps": [{"id": "a", "name": "search", "args":\n'
        '{"query": "${input.question}", "documents": "{documents}"}},\n'
        '{"name": "reader", "args": {"question": "$question", "context": "${a[0].text}"}, "output": "b"}],\n'
        '"return": "b"}',
        '{"name": "search", "arguments": {"query": "input.question", "documents": "input.documents"}}\n'
        '{"name": "reader", "arguments": {"question": "input.question", "context": "s1[0].text"}}',
        '[{"function": {"name": "search", "arguments": '
        '"{\\"query\\": \\"input.question\\", \\"documents\\": \\"input.documents\\"}"}},\n'
        '{"reader": {"question": "input.question", "context": "s1[0].text"}}]',
    ],
    ids=lambda text: text[:24],
)
def test_rewrite_lines_reads_what_models_write(text: str) -> None:
    lines = rewritten(text)
    expected = PLAN if "return" in lines else PLAN.removesuffix("\nreturn s2")
    assert lines == expected


@given(LINES)
def test_rewrite_lines_keeps_the_notation(line: PlanStep | PlanAnswer) -> None:
    assert rewrite_lines([str(line)], (), ()) == [str(line)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("search(query='the tower', documents=input.documents)",
         's1 = search(query="the tower", documents=input.documents)'),
        ("search(query='it\\'s \"x\"', documents=input.documents)",
         's1 = search(query="it\'s \\"x\\"", documents=input.documents)'),
        ('search(query="a # b", documents=input.documents)', 's1 = search(query="a # b", documents=input.documents)'),
        ("[reader(question=x, context=documents[0].text) for x in [\"a\", \"b\"]]",
         's1 = [reader(question=x, context=input.documents[0].text) for x in ["a", "b"]]'),
        ('{"tool": "search", "query": "documents", "documents": "input.documents"}',
         's1 = search(query="documents", documents=input.documents)'),
        ("f(a=1)\nf(a=1)\nreturn s1", "s1 = f(a=1)\nreturn s1"),
        ("docs = f(a=1)\nmore = f(a=1)\ng(a=more)", "s1 = f(a=1)\ns2 = g(a=s1)"),
    ],
)  # fmt: skip
def test_rewrite_lines_reads_constants_and_repetitions(text: str, lines: str) -> None:
    assert rewritten(text) == lines


@pytest.mark.parametrize(
    "text",
    [
        "Sure! First I would search.",
        "s1 = search(input.question, input.documents)",
        "I would use search (the documents) first",
        '{"plan": "search the documents"}',
        '[{"tool": "search"}, "then read"]',
        '{"tool": "sea rch", "arguments": {}}',
        "x = 5",
        "s1 == f(a=1)",
    ],
)
def test_rewrite_lines_leaves_unclear_text(text: str) -> None:
    assert rewritten(text) == text


def test_rewrite_lines_keeps_unclear_line_that_looks_like_a_call() -> None:
    assert (
        rewritten(f"Some prose.\n{SEARCHED}\nreader(input.question)\nMore prose.")
        == f"{SEARCHED}\ns2 = reader(input.question)"
    )


def test_rewrite_lines_starting_over_continues_after_accepted_steps() -> None:
    bare = SEARCHED.removeprefix("s1 = ")
    assert (
        rewritten(f"found = {bare}\nreader(question=question, context=found[0].text)", SEARCHED)
        == f"{SEARCHED}\n{READ}"
    )


@pytest.mark.parametrize("stepwise", [True, False])
@pytest.mark.parametrize(
    "reply",
    [
        "```python\npassages = search(query=question, documents=documents)\n"
        "result = reader(question=question, context=passages[0].text)\nreturn result\n```",
        '```json\n{"steps": [\n{"tool": "search", "arguments": '
        '{"query": "input.question", "documents": "input.documents"}},\n'
        '{"tool": "reader", "arguments": {"question": "input.question", "context": "s1[0].text"}}],\n'
        '"answer": "s2"}\n```',
    ],
)
def test_planner_accepts_plan_in_another_spelling(reply: str, stepwise: bool) -> None:
    state, _ = start(PlanRequest("Where?", offer(), 0, stepwise))
    _, found = advance(state, reply)
    assert isinstance(found, PlanFound)
    assert str(found.plan) == PLAN


def test_planner_validates_rewritten_calls() -> None:
    state, _ = start(PlanRequest("Where?", offer(), 0))
    _, refused = advance(state, "delete_all()\nreturn s1")
    assert isinstance(refused, PlanNotFound)
    assert refused.rejections[0].code == "R002"


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        ("search(input.question, input.documents)", ("s1 = search(input.question, input.documents)", "expected '='")),
        ("s1 = search(query=input.question)", ("search needs documents", "in 's1 = search(query=input.question)'")),
        (
            "s1 = serch(query=input.question, documents=input.documents)",
            ("there is no 'serch'", "did you mean search?"),
        ),
        ("s1 = search(query=input.documents, documents=input.documents)", ("expected str",)),
        ("s1 = search(query=s4, documents=input.documents)", ("there is no s4",)),
        ("First search the documents.", ("a step begins with its name",)),
    ],
)
def test_planner_rejection_has_line_and_corrected_example(reply: str, parts: tuple[str, ...]) -> None:
    state, _ = start(PlanRequest("Where?", offer(), 1))
    _, wanted = advance(state, reply)
    assert isinstance(wanted, PlannerQuestion)
    (feedback,) = wanted.feedback
    assert all(part in feedback for part in parts), feedback
    assert feedback.endswith(f"write for example: {SEARCHED}")
    assert feedback in wanted.inputs["request"]


@pytest.mark.parametrize("line", ["s1 = pay(amount=1, to=2)", "s1 = unknown()", "s1 = cite(question=input.question)"])
def test_corrected_call_without_valid_call_is_none(line: str) -> None:
    """The calls have effects, or need values that are not there."""
    pay = contract("pay", "tool", {"amount": {"type": "string"}}, STR)
    capabilities = offer(SEARCH, pay)
    with_effects = replace(capabilities.by_name["pay"], has_effects=True)
    capabilities = replace(capabilities, by_name={**capabilities.by_name, "pay": with_effects})
    assert corrected_call(line, parse_line(line), capabilities, ()) is None


def test_corrected_call_keeps_what_fits() -> None:
    line = parse_line('s1 = search(query="towers", documents=input.question, top=3)')
    assert corrected_call(str(line), line, offer(), ()) == PlanStep(
        "s1",
        "search",
        {
            **{name: value for name, value in line.arguments.items() if name in ("query", "top")},  # type: ignore[union-attr]
            "documents": PlanReference("input", ("documents",)),
        },
    )
