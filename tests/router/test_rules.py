"""Plans of requests whose kind is certain, without the router."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.agents.contract import Contract
from orchestra.router.capabilities import Capabilities, Capability
from orchestra.router.input_types import infer_schema
from orchestra.router.rules import RULES, plan_by_rule
from orchestra.schema.builtin_models import Document, Table
from orchestra.schema.types import schema_of
from orchestra.tools import calculate, query_table, query_tables
from orchestra.tools.replies import Reply

DOCUMENTS = [{"source": "leave.md", "text": "Full-time employees receive 27 days of paid leave. Dogs may not enter."}]
SALES = {"name": "sales.csv", "cells": [["Region", "Q1", "Q2"], ["North", "5", "7"], ["South", "9", "2"]]}
TEXT = {"type": "string"}
REPLY = schema_of(Reply, "serialization")


def skill(name: str, field: str, **more: Any) -> Capability:
    fields = {field: TEXT, "documents": schema_of(list[Document], "validation"), **more}
    return Capability(name, "call", fields, frozenset({field, "documents"}), REPLY)


SKILLS = (
    skill("find_answer", "question", tables=schema_of(list[Table], "validation")),
    skill("check_claim", "claim"),
    *(
        skill(name, "request")
        for name in ("list_items", "summarize", "compare_sources", "classify_texts", "extract_fields")
    ),
    *(Capability.from_contract(tool.contract) for tool in (calculate, query_table, query_tables)),
)


def plan(request: str, *more: Capability | Contract, skills: tuple[Capability, ...] = SKILLS, **values: Any) -> str:
    values = values or {"documents": DOCUMENTS}
    inputs = {"request": TEXT, **{name: infer_schema(value) for name, value in values.items()}}
    offer = Capabilities.of([*skills, *more], inputs, request_text=request, may_decline=True)
    made = plan_by_rule(request, offer, {"request": request, **values})
    return "" if made is None else str(made.plan)


def whole(name: str, field: str) -> str:
    return f"s1 = {name}({field}=input.request, documents=input.documents)\nreturn s1"


def test_text_to_write_is_drafted_if_that_is_offered() -> None:
    request = "Write one or two lines to Ms Berg about the boat."
    assert plan(request, skill("draft_text", "request")) == whole("draft_text", "request")


def test_question_goes_to_the_larger_reader_if_it_is_offered() -> None:
    larger = skill("read_answer", "question")
    assert plan("How many days of leave do I get?", larger) == whole("read_answer", "question")


@pytest.mark.parametrize(
    ("request_", "name", "field"),
    [
        ("How many days of leave do I get?", "find_answer", "question"),
        ("My boss wants to know who approves a course.", "find_answer", "question"),
        ("which number do I ring", "find_answer", "question"),
        ("Wie viele Tage Urlaub habe ich?", "find_answer", "question"),
        ("Are dogs allowed in?", "check_claim", "claim"),
        ("Summarise the minutes in two sentences.", "summarize", "request"),
        ("List the action items.", "list_items", "request"),
        ("Everyone who sat in on the meeting, please.", "list_items", "request"),
        ("Compare the old and the new terms.", "compare_sources", "request"),
        ("Is the message an order, a complaint or a booking?", "classify_texts", "request"),
        ("Extract sender and date from the mail.", "extract_fields", "request"),
    ],
)
def test_request_of_a_known_kind_is_one_step(request_: str, name: str, field: str) -> None:
    assert plan(request_) == whole(name, field)


@pytest.mark.parametrize(
    ("request_", "claim"),
    [
        ("Is it true that dogs may enter?", "dogs may enter?"),
        ("Check whether dogs may enter.", "dogs may enter."),
        ("A colleague says dogs may enter. Is she right?", "dogs may enter"),
    ],
)
def test_claim_is_passed_without_its_introduction(request_: str, claim: str) -> None:
    assert plan(request_) == f's1 = check_claim(claim="{claim}", documents=input.documents)\nreturn s1'


def test_question_that_a_table_explains_is_a_query() -> None:
    asked = "Which region had the highest Q2?"
    assert plan(asked, documents=DOCUMENTS, tables=[SALES]).startswith(
        "s1 = query_tables(question=input.request, tables="
    )
    assert plan(asked, table=SALES["cells"]) == "s1 = query_table(question=input.request, table=input.table)\nreturn s1"
    assert "find_answer" in plan("Which dogs may enter?", documents=DOCUMENTS, tables=[SALES])


def test_parts_of_a_request_are_steps() -> None:
    first, second = "How many days of leave do I get?", "Are dogs allowed in?"
    assert plan(f"{first} Also: {second}") == (
        f's1 = find_answer(question="{first}", documents=input.documents)\n'
        f's2 = check_claim(claim="{second}", documents=input.documents)\n'
        "return s1, s2"
    )


@pytest.mark.parametrize("request_", ["Send Ann the price list.", "Ring Mrs Pearson tomorrow.", "Please book a room."])
def test_action_is_declined_if_no_capability_acts(request_: str) -> None:
    assert plan(request_) == "return nothing"
    acting = Capability("send_mail", "tool", {"text": TEXT}, frozenset({"text"}), TEXT, has_effects=True)
    assert plan(request_, acting) == ""


@pytest.mark.parametrize("request_", ["hello", "thanks"])
def test_request_without_content_is_left_to_the_router(request_: str) -> None:
    assert plan(request_) == ""


@pytest.mark.parametrize("request_", ["Ann Berg mobile number pls", "opening hours in summer", "Work out the fee."])
def test_request_of_no_form_is_read_for_if_only_packaged_skills_are_offered(request_: str) -> None:
    assert plan(request_) == whole("find_answer", "question")
    own = Capability("paint_boat", "tool", {"text": TEXT}, frozenset({"text"}), TEXT, "Paints a boat.")
    assert plan(request_, own) == ""


@pytest.mark.parametrize(
    ("request_", "skill_"),
    [
        ("I can't read French. Get me from the mail: the date, the price.", "extract_fields"),
        ("Pull these out of the booking: number of pallets, weight.", "extract_fields"),
        ("Hi all, could you list the papers that a new tenant has to sign? Thanks!", "list_items"),
        ("We have little time. Summarise the minutes.", "summarize"),
    ],
)
def test_form_is_found_after_a_greeting_and_in_any_sentence(request_: str, skill_: str) -> None:
    assert plan(request_) == whole(skill_, "request")


@pytest.mark.parametrize(
    "request_", ["Please reply to Ann that it is booked.", "Tell Bob that we are late.", "Let the team know."]
)
def test_message_to_others_is_declined(request_: str) -> None:
    assert plan(request_) == "return nothing"


def test_question_that_a_table_explains_is_one_part() -> None:
    request = "Which region had the highest Q1, and how much was it?"
    assert "query_tables(question=input.request" in plan(request, documents=DOCUMENTS, tables=[SALES, SALES])


def test_nearer_capability_of_the_project_is_left_to_the_router() -> None:
    own = Capability("leave_days", "tool", {"text": TEXT}, frozenset({"text"}), TEXT, "Computes the days of leave.")
    assert plan("How many days of leave do I get?", own) == ""
    assert plan("Who opened the pool?", own) == whole("find_answer", "question")


def test_no_plan_without_the_skill_or_its_values() -> None:
    assert plan("How many days of leave do I get?", skills=SKILLS[1:2]) == ""
    assert plan("How many days of leave do I get?", text="a text") == ""
    optional = Capability("summarize", "call", SKILLS[3].fields, frozenset({"request"}), REPLY)
    assert plan("Summarise it.", skills=(optional,)) == whole("summarize", "request")
    assert plan("Summarise it.", skills=(optional,), text="a text") == ""


def test_rules_have_distinct_names() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_stated_computation_needs_no_value() -> None:
    offer = Capabilities.of(SKILLS, {"request": TEXT}, request_text="What is 18 % of 2,450?", may_decline=True)
    made = plan_by_rule("What is 18 % of 2,450?", offer, {"request": "What is 18 % of 2,450?"})
    assert str(made and made.plan) == "s1 = calculate(question=input.request)\nreturn s1"


@pytest.mark.parametrize(
    "request_",
    ["Draft two sentences to Ann.", "Write one or two lines to Ann about the dog.", "Compose a reply to the mail."],
)
def test_draft_is_declined_if_no_capability_drafts(request_: str) -> None:
    assert plan(request_) == "return nothing"
    drafts = (*SKILLS, skill("draft_text", "request"))
    assert plan(request_, skills=drafts) == whole("draft_text", "request")


def test_stated_computation_beside_documents_is_calculated() -> None:
    assert plan("What is 18 % of 2,450?").startswith("s1 = calculate(")
