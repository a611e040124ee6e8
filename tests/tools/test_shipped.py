"""The packaged workflows compile with the packaged agents, and triage assigns every intent to a queue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from orchestra.agents.contract import Catalog
from orchestra.agents.registry import Registry, builtin_folder
from orchestra.router.tools import TOOLS as PLANNING
from orchestra.tools import BUILTIN_TOOLS, load_tool
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.model import Graph
from orchestra.workflows.program import Program
from orchestra.workflows.yaml.reader import read

NAMES = (
    *("answer_from_documents", "financial_question", "planner", "support_desk", "triage_message", "find_answer"),
    *("check_claim", "list_items", "summarize", "classify_texts", "compare_sources", "extract_fields"),
    *("read_answer", "draft_text"),
)
EXAMPLES = builtin_folder("agents").parent / "examples" / "documents"


def graphs() -> dict[str, Graph]:
    return {name: read((builtin_folder("workflows") / f"{name}.yaml").read_bytes(), name).graph for name in NAMES}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Registry.load().with_lazy_tools(BUILTIN_TOOLS, load_tool).with_tools(PLANNING).catalog(graphs())


@pytest.fixture(scope="module")
def triage(catalog: Catalog) -> Program:
    return compile_graph(graphs()["triage_message"], catalog)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_workflow_compiles_without_warning(name: str, catalog: Catalog) -> None:
    assert compile_graph(graphs()[name], catalog).warnings == ()


def test_shipped_readings_judged_against_own_passage(catalog: Catalog) -> None:
    program = compile_graph(graphs()["answer_from_documents"], catalog)
    readings = next(node for node in program.nodes if node.name == "readings")
    assert readings.acceptance is not None
    assert set(readings.acceptance.checks) >= {"quote"}
    assert readings.acceptance.against is not None
    assert readings.acceptance.against.references == {"passage"}


def queue(program: Program, intent: str) -> str:
    bindings: Mapping[str, Any] = {"intent": {"intent": intent}}
    for name in ("fraud", "identity", "payments", "cards"):
        node = next(node for node in program.nodes if node.name == name)
        assert node.when is not None
        if node.when.evaluate(bindings):
            return name
    return "general"


@pytest.mark.parametrize(
    ("intent", "expected"),
    [
        ("lost_or_stolen_card", "fraud"),
        ("card_payment_not_recognised", "fraud"),
        ("verify_top_up", "identity"),
        ("terminate_account", "identity"),
        ("declined_card_payment", "payments"),
        ("Refund_not_showing_up", "payments"),
        ("beneficiary_not_allowed", "payments"),
        ("card_arrival", "cards"),
        ("pin_blocked", "cards"),
        ("fiat_currency_support", "general"),
    ],
)
def test_shipped_intent_goes_to_its_queue(triage: Program, intent: str, expected: str) -> None:
    assert queue(triage, intent) == expected


def test_shipped_one_intent_uses_general_queue(triage: Program, catalog: Catalog) -> None:
    intents = catalog.agents["banking_intent"].output["properties"]["intent"]["enum"]
    assert [intent for intent in intents if queue(triage, intent) == "general"] == ["fiat_currency_support"]


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are in the source tree only")
def test_shipped_example_questions_have_answers_in_documents() -> None:
    questions = json.loads((EXAMPLES / "questions.json").read_text("utf-8"))
    texts = {path.name: path.read_text("utf-8") for path in EXAMPLES.glob("*.txt")}
    assert (len(texts), len(questions), sum(not question["answers"] for question in questions)) == (12, 10, 3)
    for question in questions:
        assert all(answer in texts[question["document"]] for answer in question["answers"])
    assert {"LICENSE", "README.md"} <= {path.name for path in EXAMPLES.iterdir()}


def test_every_built_in_tool_has_the_name_under_which_it_is_loaded() -> None:
    assert [load_tool(name).contract.name for name in BUILTIN_TOOLS] == list(BUILTIN_TOOLS)
