"""Tests of the Python writer: the written function traces to the same graph."""

from __future__ import annotations

import linecache
from typing import Any

import pytest

import orchestra
from orchestra import Graph, InputError, Workflow, workflow
from orchestra.workflows.python.trace import to_python
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.workflows import ensemble
from tests.workflows.ensemble import compiled
from tests.workflows.test_builder import ANSWER_FROM_DOCUMENTS, answer_from_documents, many, of_the_design, one_page

FLOWS: list[Workflow[..., Any]] = [answer_from_documents, of_the_design, one_page, many]
HEAD = "schema: orchestra/v1\nname: flow\ninput: {question: str, documents: 'list[Document]', short: bool}\n"
YAML = {
    "the larger model at once": (
        """
output: ${maths}
nodes:
  kind: {agent: classifier, with: {text: "${input.question}"}}
  maths:
    agent: calculator
    with: {question: "${input.question}"}
    escalate: '${kind.label == "math" || input.short}'
    timeout: 30
"""
    ),
    "one agent of several": (
        """
output: ${maths}
nodes:
  kind: {agent: classifier, with: {text: "${input.question}"}}
  maths:
    agent: {by: "${kind.label}", of: {math: calculator}, otherwise: calculator}
    with: {question: "${input.question}"}
    escalate: ${input.short}
"""
    ),
    "a choice": (
        """
output: ${first}
nodes:
  kind: {agent: classifier, with: {text: "${input.question}"}}
  maths: {agent: calculator, with: {question: "${input.question}"}, when: '${kind.label == "math"}'}
  first: {first_of: ["${maths}", {text: none, citations: []}]}
"""
    ),
    "nodes in any order, named like steps": (
        """
output: ${calculator}
nodes:
  calculator: {agent: calculator, with: {question: 'So: ${reader.answer == null ? "none" : reader.answer}'}}
  reader:
    agent: reader
    with: {question: "${input.question}", context: "${input.documents[0].text}"}
    retry: {attempts: 4, wait: [1, 2]}
    timeout: 30
"""
    ),
    "a skip that is inherited": (
        """
output: ${second}
nodes:
  first: {agent: calculator, with: {question: "${input.question}"}, when: "${input.short}"}
  second: {tool: cite, with: {question: '${first.text == null ? "" : first.text}', readings: []}}
"""
    ),
    "elements that are skipped or withheld": (
        """
output: ${written}
nodes:
  readings:
    agent: reader
    each: ${input.documents}
    as: document
    when: '${document.text != ""}'
    with: {question: "${input.question}", context: "${document.text}"}
    checks: [quote]
    against: ${document.text}
    otherwise: [retry, abstain]
    concurrency: 8
    at_least: 3
  written: {agent: writer, with: {question: "${input.question}", findings: "${readings.values}"}}
"""
    ),
    "a list that is skipped as a whole": (
        """
output: ${written}
nodes:
  readings:
    agent: reader
    each: ${input.documents}
    as: document
    when: ${input.short}
    with: {question: "${input.question}", context: "${document.text}"}
  written: {agent: writer, with: {question: "${input.question}", findings: "${readings.values}"}}
"""
    ),
    "a block for each element": (
        """
output: {parts: "${parts.values}", count: "${size(parts.values)}"}
budget: {tokens: 100, seconds: 9.5}
nodes:
  parts:
    call:
      nodes:
        kind: {agent: classifier, with: {text: "${document.text}"}}
        reading: {agent: reader, with: {question: "${kind.label}", context: "${document.text + input.question}"}}
      output: ${reading}
    each: ${input.documents.filter(d, d.text != "")}
    as: document
"""
    ),
    "a loop": (
        """
output: ${better}
nodes:
  better:
    loop:
      at_most: 4
      until: ${draft.text != null}
      output: ${draft}
      nodes:
        draft: {agent: calculator, with: {question: "${previous == null ? input.question : string(turn)}"}}
"""
    ),
    "a loop that ends as a node behind it says": (
        """
output: ${better}
nodes:
  better:
    loop:
      at_most: 4
      until: ${draft.text == goal.text}
      output: ${draft}
      nodes:
        draft: {agent: calculator, with: {question: "${input.question}"}}
  goal: {agent: calculator, with: {question: "${input.question}"}}
"""
    ),
    "an agent's leave for effects": (
        """
output: ${reader}
nodes:
  reader: {agent: reader, with: {question: "${input.question}", context: x}, tools: [send, mcp/mail]}
"""
    ),
    "a plan with all that it may have": (
        """
output: ${solved}
nodes:
  first: {agent: calculator, with: {question: one}}
  solved:
    plan: "Answer: ${input.question}"
    with: {question: "${input.question}", documents: "${input.documents}", limits: 3, class: "${first.text}"}
    agents: [reader, calculator]
    tools: [search, fetch]
    workflows: [one_page]
    returns: Answer
    limits: {steps: 6, width: 8}
    repairs: 0
    replans: 3
    streaming: false
    router: planner
    larger: reader
    votes: 5
    cache: false
    stepwise: false
    copied: true
    literals: true
    confirm: false
    grounded: true
    each_part: true
    anyway: true
    shortlist: 12
    fallback: {text: null, citations: []}
    timeout: 30
    retry: 2
    after: [first]
"""
    ),
    "a plan of anything": (
        """
output: ${planned}
nodes:
  planned: {plan: "${input.question}", agents: [reader], returns: anything}
"""
    ),
    "a plan of the least": (
        """
output: ${planned}
nodes:
  planned: {plan: think}
"""
    ),
    "plans for each element, checked and guarded": (
        """
output: "${planned.values}"
nodes:
  planned:
    plan: ${document.text}
    returns: list[Answer | null]
    agents: [calculator]
    each: ${input.documents}
    as: document
    when: ${document.text != "" && !input.short}
    checks: [numbers]
    against: ${input.question}
    otherwise: [abstain]
"""
    ),
    "a plan whose skills are called as nodes are": (
        """
output: ${reader}
nodes:
  search: {tool: search, with: {query: "${input.question}", documents: "${input.documents}"}}
  reader: {plan: "${input.question}", with: {passages: "${search}"}, agents: [reader], tools: [search, cite], returns: Reading}
"""  # noqa: E501
    ),
    "questions to a person": (
        """
output: {filed: "${filed}", nights: "${nights}", why: "${why}", guests: "${guests.values}", spoken: "${spoken}"}
nodes:
  first: {agent: calculator, with: {question: one}}
  filed:
    ask: "File $${it} for ${first.text == null ? input.question : first.text}?"
    options: ["yes", "no", "it's \\"later\\""]
    timeout: 3600
    fallback: "no"
    retry: 2
    after: [first]
  nights: {ask: "How many nights?", returns: "int | null", fallback: "${null}"}
  maybe: {ask: Why?, when: '${filed == "no"}'}
  why: {first_of: ["${maybe}", "-"]}
  guests: {ask: "Does ${document.source} come?", each: "${input.documents}", as: document, returns: bool}
  spoken: {ask: "${input.question}", returns: Reading, checks: [quote], against: "${input.question}"}
"""
    ),
    "a question where a value is called like the word": (
        """
output: ${ask}
nodes:
  ask: {ask: "Really?", options: ["yes"]}
"""
    ),
    "a verified value that waits": (
        """
output: ${checked}
label: restricted
nodes:
  first: {agent: calculator, with: {question: one}}
  second: {agent: calculator, with: {question: "two $${x} {y}"}, after: [first], fallback: {text: "${input.question}", citations: []}}
  checked: {verify: "${second}", checks: [numbers, mine], against: ["${input.question}", text], accept: certified}
"""  # noqa: E501
    ),
}


def traced(source: str) -> Graph:
    """The graph of a written function."""
    space: dict[str, Any] = {name: getattr(orchestra, name) for name in orchestra.__all__}
    space |= {name: found for name, found in vars(ensemble).items() if isinstance(found, orchestra.Step)}
    space |= {"Any": Any, "orchestra": orchestra, "one_page": one_page}
    linecache.cache["<written>"] = (len(source), None, source.splitlines(keepends=True), "<written>")
    exec(compile(source, "<written>", "exec"), space)
    (flow,) = [found for name, found in space.items() if isinstance(found, Workflow) and f"def {name}(" in source]
    return flow.graph


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_to_python_round_trip_from_python(flow: Workflow[..., Any]) -> None:
    graph = read(write(flow.graph), "flow.yaml").graph
    assert traced(to_python(graph)) == flow.graph


@pytest.mark.parametrize("text", YAML.values(), ids=YAML.keys())
def test_to_python_round_trip_from_yaml(text: str) -> None:
    graph = read(HEAD + text, "flow.yaml").graph
    assert traced(to_python(graph)) == graph


@pytest.mark.parametrize("before", ["costs $", "$", "$$", "a $${b} $", "$$$ ", ""])
def test_to_python_dollar_signs_kept(before: str) -> None:
    @workflow()
    def priced(question: str) -> Any:
        return ensemble.calculator(question=before + question + "$")

    (node,) = compiled(priced).nodes
    assert node.inputs is not None
    assert node.inputs.evaluate({"input": {"question": "7"}}) == {"question": f"{before}7$"}
    graph = read(write(priced.graph), "flow.yaml").graph
    assert traced(to_python(graph)) == priced.graph


def test_to_python_default_reads_back() -> None:
    @workflow()
    def priced(question: str = "costs ${x} and $${y}") -> Any:
        return ensemble.calculator(question=question)

    assert priced.graph.input["question"].default == "costs $${x} and $$${y}"
    assert compiled(priced).inputs["question"].default == "costs ${x} and $${y}"
    graph = read(write(priced.graph), "flow.yaml").graph
    assert traced(to_python(graph)) == priced.graph


def test_to_python_is_idiomatic() -> None:
    graph = read(ANSWER_FROM_DOCUMENTS, "answer.yaml").graph
    assert to_python(graph).splitlines() == [
        "@workflow(budget=Budget(tokens=20000, seconds=60.0))",
        "def answer_from_documents(question: str, documents: list[Document]) -> Any:",
        "    'Answers a question from documents, with quotes, or says that they do not tell.'",
        "    passages = search(query=question, documents=documents, top=6)",
        (
            "    readings = map_(lambda passage: accepted(reader(question=question, context=passage.text), "
            "checks=quote, against=passage.text, accept=0.5, otherwise=[retry, abstain]), passages)"
        ),
        "    answer = cite(question=question, readings=values(readings))",
        "    return answer",
    ]


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("{ask: 'really?', returns: \"Literal['yes', 'no']\"}", "which Python has as `options`"),
        ("{plan: think, agents: [mcp/reader]}", "'mcp/reader' is not a variable name"),
        (
            "{call: {nodes: {a: {agent: calculator, with: {question: x}}}, output: '${a}'}}",
            "is of a kind that Python has no word for",
        ),
        ("{first_of: ['${input.question}'], retry: 3}", "`retry` is set on a node that calls no agent"),
        ("{agent: calculator, with: {question: \"${input.question.matches('a') ? 'b' : 'c'}\"}}", "matches()"),
        ("{agent: calculator, with: {question: 'x ${input.question'}}", "`${input.question` is not closed"),
        (
            "{agent: calculator, with: {question: '${input question}'}}",
            "`${input question}` is no expression: unexpected 'question'",
        ),
    ],
)
def test_to_python_inexpressible_graph_refused(node: str, reason: str) -> None:
    graph = read(HEAD + "output: ${only}\nnodes:\n  only: " + node, "flow.yaml").graph
    with pytest.raises(InputError) as caught:
        to_python(graph)
    assert caught.value.code == "W022"
    assert reason in caught.value.message


def test_escalate_option_written() -> None:
    @orchestra.workflow()
    def routed(question: str, short: bool) -> orchestra.Answer:
        return ensemble.calculator.options(escalate=orchestra.not_(short))(question=question)

    assert routed.graph.nodes["calculator"].escalate == "${!input.short}"  # type: ignore[union-attr]  # it is an agent's


@pytest.mark.parametrize("given", [True, "yes", "question"])
def test_escalate_non_condition_refused(given: Any) -> None:
    @orchestra.workflow()
    def routed(question: str) -> orchestra.Answer:
        condition: Any = question if given == "question" else given
        return ensemble.calculator.options(escalate=condition)(question=question)

    with pytest.raises(InputError) as caught:
        _ = routed.graph
    assert caught.value.code == "W011"


def test_escalate_on_tool_refused() -> None:
    @orchestra.workflow()
    def routed(question: str, documents: list[orchestra.Document], short: bool) -> list[orchestra.Passage]:
        return ensemble.search.options(escalate=short)(query=question, documents=documents)

    with pytest.raises(InputError) as caught:
        _ = routed.graph
    assert caught.value.code == "W016"
