"""The data set of the router: its plans pass validation and the decoding grammar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.router.data.build import SETS, TIMES, made, pieces, wanted
from agents.router.data.request_forms import Forms, Whole, bare_messages
from orchestra.router.plan_syntax import PlanAnswer, PlanLiteral, PlanStep, parse_plan

WORDS = (
    "Does it rain in May?",
    "What was sold in 2019?",
    "Hens lay eggs.",
    "my card was stolen",
    "book me a table",
    "for 3 people at 7 pm",
)
LONG = "what do six boxes of fourteen pens and five more come to"
FORMS = Forms(
    {"sum": ["be so kind: {}"], "table": ["{} quickly"]},
    ["{} - that, and {}"],
    [
        Whole(kinds=("table",), request="Sales, 2019?"),
        Whole(kinds=("table",), request="It was my first year, 2018. [[What did we sell?]]"),
        Whole(kinds=("table", "sum"), request="Read it off: [[Costs?]] And [[what is 2 and 2]]?"),
        Whole(kinds=("documents", "sum"), request="[[Who won]], and [[what is 2 and 2]]?"),
        Whole(kinds=("assistant_intent", "booking"), request="intent and details: [[a table for two]]"),
        Whole(kinds=("nothing",), request="Sing."),
        Whole(kinds=("documents", "documents"), request="[[Who won]] and [[who lost]]?"),
        Whole(kinds=("sum", "sum"), request="[[2 and 2]], [[2 and 2]]"),
        Whole(kinds=("sum", "sum"), request=f"[[2 and 2]], [[{LONG}]]"),
    ],
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # not the machine's journal
    for (name, (_, field)), text in zip(SETS.items(), WORDS, strict=True):
        (tmp_path / name).mkdir()
        intents = ["tell_joke", "alarm", "balance", "weather", "recipe"]
        rows = [
            {"input": {field: f"{text} number {number}"}, "expected": {"intent": intents[number % 5]}}
            for number in range(30)
        ] + [
            {"input": {field: "x" * 300}, "expected": {"intent": "weather"}},
            {"input": {field: "?"}, "expected": {"intent": "weather"}},
        ]
        (tmp_path / name / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_plan_texts_are_pieces_of_request(folder: Path) -> None:
    for one in wanted(pieces(folder), 40, FORMS):
        stated = [
            value.value
            for step in parse_plan(one.plan)
            if isinstance(step, PlanStep)
            for value in step.arguments.values()
            if isinstance(value, PlanLiteral)
        ]
        assert all(text in one.request for text in stated if isinstance(text, str))


def test_pieces_short_and_used_once(folder: Path) -> None:
    found = pieces(folder)
    assert all(len(texts) == 30 for name, texts in found.items() if name in SETS and name != "clinc150")
    plans = "\n".join(one.plan for one in wanted(found, 60, FORMS))
    assert all(plans.count(f'claim="{text}"') <= 1 for text in found["factcheckgpt"])


async def test_router_rows_have_valid_plans(folder: Path) -> None:
    data = await made(folder, 30)
    ids = [row.id for rows in data.rows.values() for row in rows]
    assert sum("mended" not in id_ for id_ in ids) == 30 + TIMES * len(Forms.read().whole)
    assert sum("mended" in id_ for id_ in ids) > 100
    row = data.rows["train"][0]
    assert row.input["plan"] == row.input["grammar"] == ""
    assert row.output.splitlines()[-1].startswith("return ")
    assert data.manifest.agent == "router"


def test_unserved_or_incomplete_requests_have_no_plan(folder: Path) -> None:
    found = pieces(folder)
    hopeless = [one for one in wanted(found, 100, FORMS) if one.plan == str(PlanAnswer(()))]
    strange = [
        one
        for one in hopeless
        if any(text in one.request for name in ("tasks", "talk", "commands") for text in found[name])
    ]
    lacking = [one for one in hopeless if one not in strange]
    assert len(strange) > 2
    assert len(lacking) > 2
    assert not any("documents" in one.values and "text" in one.values for one in lacking)


def test_bare_messages_have_disjoint_types(folder: Path) -> None:
    found = pieces(folder)
    assert found["talk"]
    assert found["matters"]
    apart = [set(found[name]) for name in ("talk", "commands", "matters", "clinc150")]
    assert len(set.union(*apart)) == sum(map(len, apart)) == 30
    known = bare_messages()
    assert len({intent for intents in known.values() for intent in intents}) == sum(map(len, known.values()))
    desk = [one for one in wanted(found, 200, FORMS) if any(one.request == text for text in found["matters"])]
    assert desk
    assert all("support_desk(message=input.request)" in one.plan for one in desk)


def test_written_forms_mixed_with_generated(folder: Path) -> None:
    made = [one.request for one in wanted(pieces(folder), 200, FORMS)]
    assert any(request.startswith("be so kind: ") for request in made)
    assert any(" - that, and " in request for request in made)
    assert not any("{}" in request for request in made)


def test_whole_requests_get_steps_of_kinds(folder: Path) -> None:
    plans: dict[str, set[str]] = {}
    for one in [*wanted(pieces(folder), 10, FORMS)][-TIMES * len(FORMS.whole) :]:
        plans.setdefault(one.request, set()).add(one.plan)
    assert plans == {
        "Sales, 2019?": {"s1 = financial_question(question=input.request, table=input.table)\nreturn s1"},
        "It was my first year, 2018. What did we sell?": {
            "s1 = financial_question(question=input.request, table=input.table)\nreturn s1"
        },
        "Read it off: Costs? And what is 2 and 2?": {
            (
                's1 = financial_question(question="Costs?", table=input.table)\n'
                's2 = calculator(question="what is 2 and 2")\n'
                "return s1, s2"
            )
        },
        "Who won, and what is 2 and 2?": {
            's1 = answer_from_documents(question="Who won", documents=input.documents)\n'
            's2 = calculator(question="what is 2 and 2")\nreturn s1, s2'
        },
        "intent and details: a table for two": {
            (
                's1 = assistant_intent(text="a table for two")\n'
                's2 = extractor(text="a table for two", requested=[])\n'
                "return s1, s2"
            )
        },
        "Sing.": {str(PlanAnswer(()))},
        "Who won and who lost?": {
            (
                's1 = [answer_from_documents(question=x, documents=input.documents) for x in ["Who won", "who '
                'lost"]]\nreturn s1'
            )
        },
        "2 and 2, 2 and 2": {'s1 = calculator(question="2 and 2")\ns2 = calculator(question="2 and 2")\nreturn s1, s2'},
        f"2 and 2, {LONG}": {f's1 = calculator(question="2 and 2")\ns2 = calculator(question="{LONG}")\nreturn s1, s2'},
    }


MIXED = "[[What is 2 and 2?]] Also: [[sing a song.]]"


def test_served_parts_planned_others_not(folder: Path) -> None:
    whole = [
        Whole(kinds=("sum", "nothing"), request=MIXED),
        Whole(kinds=("nothing", "sum"), request="[[Sing a song.]] Also: [[what is 2 and 2?]]"),
        Whole(kinds=("sum", "nothing"), request="[[What is 2 and 2]] and [[sing a song]]"),
    ]
    plans = [one.plan for one in [*wanted(pieces(folder), 0, Forms({}, [], whole), times=1)]]
    assert plans == [
        's1 = calculator(question="What is 2 and 2?")\nreturn s1',
        's1 = calculator(question="what is 2 and 2?")\nreturn s1',
        str(PlanAnswer(())),
    ]


async def test_mended_row_after_incomplete_plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = "[[What is 2 and 2?]] Also: [[what is 3 and 3?]]"
    forms = Forms(
        {}, [], [Whole(kinds=("sum", "nothing"), request=MIXED), Whole(kinds=("sum", "booking"), request=both)]
    )
    monkeypatch.setattr("agents.router.data.build.Forms.read", lambda: forms)
    data = await made(folder, 0, times=1)
    rows = {row.id: row for part in data.rows.values() for row in part}
    assert {*rows} == {"router-0", "router-0-mended", "router-1", "router-1-mended"}
    lacking, other = rows["router-0-mended"], rows["router-1-mended"]
    assert (lacking.input["plan"], lacking.output) == ('s1 = calculator(question="What is 2 and 2?")', "\nreturn s1")
    assert lacking.input["request"].endswith(
        'Not accepted, write another line:\n- /steps: nothing serves "sing a song."; write a step for each part'
    )
    assert other.input["plan"] == 's1 = calculator(question="What is 2 and 2?")'
    assert other.output == '\ns2 = extractor(text="what is 3 and 3?", requested=[])\nreturn s1, s2'


def test_request_marks_must_match_kinds() -> None:
    with pytest.raises(ValueError, match="2 pieces for sum"):
        _ = Whole(kinds=("sum",), request="[[a]] [[b]]").pieces


def test_request_files_have_forms_for_every_kind() -> None:
    forms = Forms.read()
    assert {*forms.forms} == {
        "documents", "text_question", "table", "sum", "claim_documents", "claim_text", "bank_intent",
        "assistant_intent", "booking",
        "desk",
    }  # fmt: skip
    assert all(form.count("{}") == 1 for asks in forms.forms.values() for form in asks)
    assert all(join.count("{}") == 2 for join in forms.joins)
    assert all(piece is None or len(piece) <= 200 for one in forms.whole for piece in one.pieces)
