"""Agents, tools and models shared by the tests of Python workflows, and their catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from orchestra import Answer, Document, Graph, Passage, Reading, Workflow, agent, answered_by_model, tool, workflow
from orchestra.agents.card_types import project_models
from orchestra.agents.contract import Catalog, Contract
from orchestra.workflows.program import Program
from orchestra.workflows.python.signatures import models_in


class ReaderInput(BaseModel):
    question: str
    context: str


class WriterInput(BaseModel):
    question: str
    findings: list[Reading]


class Kind(BaseModel):
    label: Literal["math", "lookup"]
    note: str | None = None


class Page(BaseModel):
    title: str
    passages: list[Passage]
    loop: int = 0


reader = agent("reader", ReaderInput, Reading)
writer = agent("writer", WriterInput, Answer)


@agent(prompt="Say of what kind this is: {{ text }}")
def classifier(text: str) -> Kind:
    """Says of what kind a text is."""
    return answered_by_model()


@agent(prompt="{{ question }}")
def calculator(question: str) -> Answer:
    """Computes."""
    return answered_by_model()


@tool(effect="pure")
def search(query: str, documents: Sequence[Document], top: int = 5) -> list[Passage]:
    """Finds passages."""
    return [Passage(source=one.source, text=one.text) for one in documents if query in one.text][:top]


@tool(effect="pure")
def cite(question: str, readings: Sequence[Reading]) -> Answer:
    """Puts an answer together."""
    return Answer(text=next((reading.answer for reading in readings), question))


@tool(effect="idempotent")
async def fetch(url: str) -> Page:
    """Gets a page."""
    return Page(title=url, passages=[])


@tool(effect="pure")
def split(text: str) -> tuple[str, int]:
    """The first word, and how many there are."""
    words = text.split()
    return words[0], len(words)


@tool(effect="pure")
def total(numbers: list[float], count: int, half: float) -> float:
    """A sum."""
    return sum(numbers) * count * half


JUDGED = {"p_supported": {"type": "number"}, "p_refute": {"type": "number"}}
ENTAILMENT = Contract(
    "entailment",
    "agent",
    {
        "type": "object",
        "properties": {"claim": {"type": "string"}, "evidence": {"type": "string"}},
        "required": ["claim", "evidence"],
    },
    {"type": "object", "properties": JUDGED, "required": list(JUDGED)},
    max_output=8,
)
"""What the check `entailment` asks."""


def compiled(flow: Workflow[..., Any]) -> Program:
    """The workflow, compiled with all that it calls."""
    from orchestra.workflows.compile.compiler import compile_graph

    return compile_graph(flow.graph, catalog(flow))


def graph_of(function: Any) -> Graph:
    """The graph of a function, which the compiler has accepted."""
    flow: Workflow[..., Any] = workflow()(function)
    compiled(flow)
    return flow.graph


def catalog(*flows: Workflow[..., Any]) -> Catalog:
    """Everything that workflows call, directly or not."""
    found: dict[str, dict[str, Any]] = {"agent": {}, "tool": {}, "call": {}}
    models = dict(project_models())
    waiting: list[Any] = list(flows)
    while waiting:
        step = waiting.pop()
        if step.name in found[step.kind]:
            continue
        models.update(models_in(step.signature.input, step.signature.output))
        if isinstance(step, Workflow):
            found["call"][step.name] = step.graph
            models.update(step.models)
            waiting += step.steps
        else:
            found[step.kind][step.name] = step.contract
    checks = frozenset({"schema", "quote", "numbers", "recompute", "entailment"})
    found["agent"].setdefault("entailment", ENTAILMENT)
    return Catalog(agents=found["agent"], tools=found["tool"], workflows=found["call"], models=models, checks=checks)
