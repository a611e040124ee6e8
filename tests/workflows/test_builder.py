"""Tests of traced workflow functions: the nodes, references and options of their graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestra import (
    Answer,
    Budget,
    Document,
    InputError,
    Passage,
    Reading,
    Retry,
    Workflow,
    abstain,
    accepted,
    all_of,
    any_of,
    as_text,
    build,
    certified,
    choose,
    contains,
    entailment,
    escalate,
    filter_,
    first_of,
    has_value,
    length,
    loop,
    map_,
    not_,
    numbers,
    or_else,
    quote,
    require,
    retry,
    values,
    verify,
    when,
    workflow,
)
from orchestra.workflows.model import AgentNode, CallNode, FirstOfNode, LoopNode, NodeBlock, VerifyNode
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.workflows.ensemble import (
    Kind,
    Page,
    calculator,
    cite,
    classifier,
    compiled,
    fetch,
    graph_of,
    reader,
    search,
    split,
    total,
    writer,
)

ANSWER_FROM_DOCUMENTS = """
schema: orchestra/v1
name: answer_from_documents
description: Answers a question from documents, with quotes, or says that they do not tell.
input: {question: str, documents: "list[Document]"}
output: ${answer}
budget: {tokens: 20000, seconds: 60}
nodes:
  passages:
    tool: search
    with: {query: "${input.question}", documents: "${input.documents}", top: 6}
  readings:
    agent: reader
    each: ${passages}
    as: passage
    with: {question: "${input.question}", context: "${passage.text}"}
    checks: [quote]
    against: ${passage.text}
    accept: 0.5
    otherwise: [retry, abstain]
  answer:
    tool: cite
    with: {question: "${input.question}", readings: "${readings.values}"}
"""


@workflow(budget=Budget(tokens=20_000, seconds=60))
def answer_from_documents(question: str, documents: Sequence[Document]) -> Answer:
    """Answers a question from documents, with quotes, or says that they do not tell."""
    passages = search(query=question, documents=documents, top=6)
    readings = map_(
        lambda passage: accepted(
            reader(question=question, context=passage.text),
            checks=quote,
            against=passage.text,
            accept=0.5,
            otherwise=[retry, abstain],
        ),
        passages,
    )
    answer = cite(question=question, readings=values(readings))
    return answer  # noqa: RET504 - the node has the variable's name


@workflow(budget=Budget(tokens=20_000, seconds=60))
def of_the_design(question: str, documents: Sequence[Document]) -> Answer:
    passages = search(query=question, documents=documents, top=6)
    readings = map_(
        lambda p: accepted(
            reader(question=question, context=p.text),
            checks=quote & numbers & entailment,
            against=p.text,
            otherwise=[retry, escalate, abstain],
        ),
        passages,
    )
    return cite(question=question, readings=values(readings))


@workflow()
def one_page(url: str, question: str = "what?") -> list[Reading]:
    page = fetch(url=url)
    good = filter_(lambda passage: passage.score > 0.5, page.passages)
    return map_(lambda passage: reader(question=question + " (" + page.title + ")", context=passage.text), good)


@workflow(budget=Budget(calls=5))
def many(urls: list[str], question: str) -> Answer:
    """Nested maps, a workflow that is called, closures, expressions."""
    pages = map_(fetch, urls)

    def each(page: Page) -> Answer:
        readings = map_(lambda passage: reader(question=question, context=page.title + passage.text), page.passages)
        return writer(question=question, findings=readings)

    answers = map_(each, pages)
    inner = one_page(url=urls[0])
    last = urls[-1]
    texts = map_(lambda answer: or_else(answer.text, "?"), answers)
    sum_ = total(numbers=[1.0, 2.5], count=length(pages) + 1, half=length(texts) / 2)
    kind = classifier(text=texts[0])
    package = classifier(text=last)
    fine = all_of(
        kind.label == "math",
        any_of(length(pages) > 3, not_(contains(urls, question))),
        sum_ * 2 > 0.5,
        pages[0].loop == 0,
    )
    return first_of(
        when(fine, lambda: calculator(question=choose(has_value(kind.note), question, last))),
        when((package.label == "math") & (sum_ > 1), calculator(question='$100 ${x} é "q"')),
        otherwise=writer(question=question, findings=inner),
    )


@pytest.mark.parametrize("flow", [answer_from_documents, of_the_design, one_page, many], ids=lambda flow: flow.name)
def test_trace_written_graph_reads_back_equal(flow: Workflow[..., Any]) -> None:
    compiled(flow)
    assert read(write(flow.graph), "written.yaml").graph == flow.graph


def test_trace_equals_yaml_graph() -> None:
    assert answer_from_documents.graph == read(ANSWER_FROM_DOCUMENTS, "answer.yaml").graph


def test_trace_runs_function_once() -> None:
    traces = []

    @workflow()
    def counted(question: str) -> Answer:
        traces.append(question)
        return calculator(question=question)

    assert counted.graph is counted.graph
    assert len(traces) == 1


def test_trace_nodes_named_after_variables_or_steps() -> None:
    def names(question: str) -> Answer:
        calculator(question=question)
        first = calculator(question=question)
        calculator(question=question)
        package = calculator(question=question)
        camelCase = calculator(question=question)
        wrapped = accepted(calculator(question=question), checks=numbers, against=question)
        together = (
            or_else(first.text, "")
            + or_else(package.text, "")
            + or_else(camelCase.text, "")
            + or_else(wrapped.text, "")
        )
        return cite(question=together, readings=[])

    assert [*graph_of(names).nodes] == [
        "calculator",
        "first",
        "calculator_2",
        "package_",
        "camel_case",
        "wrapped",
        "cite",
    ]


def test_trace_later_name_does_not_hide_element() -> None:
    def later(question: str, documents: list[Document]) -> Answer:
        texts = map_(lambda p: p.text, documents)
        readings = map_(lambda q: reader(question=question, context=q), texts)
        p = cite(question=question, readings=readings)
        q = cite(question=or_else(p.text, ""), readings=readings)
        return q  # noqa: RET504 - the node has the variable's name

    assert [*graph_of(later).nodes] == ["readings", "p_2", "q_2"]


def test_map_body_with_one_call_is_each_node() -> None:
    def body(question: str, documents: list[Document]) -> Answer:
        readings = map_(lambda document: reader(question=question, context=document.text), documents)
        return writer(question=question, findings=readings)

    graph = graph_of(body)
    assert graph.nodes["readings"] == AgentNode.model_validate(
        {
            "agent": "reader",
            "with": {"question": "${input.question}", "context": "${document.text}"},
            "each": "${input.documents}",
            "as": "document",
        }
    )
    assert graph.nodes["writer"].with_["findings"] == "${readings.values}"  # type: ignore[union-attr]


def test_map_body_with_several_calls_is_block() -> None:
    def body(question: str, documents: list[Document]) -> Answer:
        def judge(document: Document) -> Reading:
            kind = classifier(text=document.text)
            return reader(question=kind.label, context=document.text)

        readings = map_(judge, documents)
        return writer(question=question, findings=readings)

    node = graph_of(body).nodes["readings"]
    assert isinstance(node, CallNode)
    assert isinstance(node.call, NodeBlock)
    assert [*node.call.nodes] == ["kind", "reader"]
    assert (node.each, node.as_, node.call.output) == ("${input.documents}", "document", "${reader}")


def test_map_body_returning_field_is_block() -> None:
    def body(question: str, documents: list[Document]) -> list[str]:
        return map_(lambda document: classifier(text=document.text).label, documents)

    node = graph_of(body).nodes["mapped"]
    assert isinstance(node, CallNode)
    assert isinstance(node.call, NodeBlock)
    assert node.call.output == "${classifier.label}"


def test_map_body_without_calls_is_expression() -> None:
    def body(question: str, documents: list[Document]) -> Answer:
        texts = map_(
            lambda document: document.source + ": " + document.text, filter_(lambda one: one.text != "", documents)
        )
        return calculator(question=texts[0])

    expected = '${input.documents.filter(one, one.text != "").map(document, document.source + ": " + document.text)[0]}'
    assert graph_of(body).nodes["calculator"].with_["question"] == expected  # type: ignore[union-attr]


def test_map_element_condition_guards_each_element() -> None:
    def body(question: str, documents: list[Document]) -> Answer:
        readings = map_(lambda one: when(one.text != "", reader(question=question, context=one.text)), documents)
        return writer(question=question, findings=values(readings))

    graph = graph_of(body)
    assert graph.nodes["readings"].when == '${one.text != ""}'


def test_map_condition_without_element_stays_in_body() -> None:
    """Under `each` it would be asked once and skip the whole list; in a body it gives an empty one."""

    def body(question: str, documents: list[Document]) -> Answer:
        readings = map_(lambda one: when(question != "", reader(question=question, context=one.text)), documents)
        return writer(question=question, findings=values(readings))

    node = graph_of(body).nodes["readings"]
    assert isinstance(node, CallNode)
    assert isinstance(node.call, NodeBlock)
    assert node.when is None
    assert node.call.nodes["reader"].when == '${input.question != ""}'


def test_accepted_sets_checks_on_producing_node() -> None:
    def clause(question: str, documents: list[Document]) -> Answer:
        text = documents[0].text
        reading = accepted(
            reader(question=question, context=text),
            checks=quote & numbers,
            against=text,
            accept=certified,
            otherwise=[retry, escalate],
        )
        return writer(question=question, findings=[reading])

    flow: Workflow[..., Any] = workflow()(clause)
    node = flow.graph.nodes["reading"]
    assert (node.checks, node.against, node.accept) == (("quote", "numbers"), "${input.documents[0].text}", "certified")
    assert node.otherwise == ("retry", "escalate")


def test_accepted_abstain_requires_alternative() -> None:
    def handled(question: str) -> Answer:
        reading = accepted(calculator(question=question), checks=numbers, against=question, otherwise=[retry, abstain])
        return first_of(reading, otherwise=calculator(question="else"))

    nodes = graph_of(handled).nodes
    assert nodes["first"] == FirstOfNode(first_of=("${reading}", "${calculator}"))


def test_require_withholds_dependent_nodes() -> None:
    def inherited(question: str) -> Answer:
        reading = accepted(calculator(question=question), checks=numbers, against=question, otherwise=[abstain])
        return calculator(question=or_else(require(reading).text, ""))

    assert graph_of(inherited).nodes["calculator"].with_["question"] == '${reading.text != null ? reading.text : ""}'  # type: ignore[union-attr]


def test_when_guards_call_or_lambda() -> None:
    def guards(question: str) -> Answer:
        kind = classifier(text=question)
        eager = when(kind.label == "math", calculator(question=question))
        lazy = when(
            kind.label == "lookup",
            lambda: writer(question=question, findings=[reader(question=question, context="inner")]),
        )
        return first_of(eager, lazy, otherwise=calculator(question="else"))

    nodes = graph_of(guards).nodes
    assert {name: node.when for name, node in nodes.items()} == {
        "kind": None,
        "eager": '${kind.label == "math"}',
        "reader": '${kind.label == "lookup"}',
        "lazy": '${kind.label == "lookup"}',
        "first": None,
        "calculator": None,
    }


def test_when_nested_guards_are_conjoined() -> None:
    def nested(question: str, short: bool) -> Answer:
        kind = classifier(text=question)
        found = when(
            any_of(short, question == ""),
            lambda: first_of(
                when(kind.label == "math", lambda: calculator(question=question)), otherwise=calculator(question="x")
            ),
        )
        return first_of(found, otherwise=calculator(question="y"))

    node = graph_of(nested).nodes["calculator"]
    assert node.when == '${(input.short || input.question == "") && kind.label == "math"}'


def test_options_set_on_node() -> None:
    def told(question: str) -> Answer:
        first = calculator(question="first")
        return calculator.options(
            timeout=30, retry=Retry(attempts=4), fallback=build(Answer, text=question), after=[first], name="last"
        )(question=question)

    node = graph_of(told).nodes["last"]
    assert (node.timeout, node.retry, node.after) == (30.0, Retry(attempts=4), ("first",))
    assert node.fallback == {"text": "${input.question}", "citations": []}


def test_map_limits_set_on_each_node() -> None:
    def limited(question: str, documents: list[Document]) -> Answer:
        readings = map_(
            lambda one: reader(question=question, context=one.text), documents, concurrency=4, limit=100, at_least="all"
        )
        return writer(question=question, findings=readings)

    node = graph_of(limited).nodes["readings"]
    assert (node.concurrency, node.limit, node.at_least) == (4, 100, "all")


def test_text_concatenation_has_references() -> None:
    def texts(question: str, count: int) -> Answer:
        return calculator(question="Compute ${: " + question + ", " + as_text(count) + " times")

    node = graph_of(texts).nodes["calculator"]
    assert node.with_["question"] == "Compute $${: ${input.question}, ${string(input.count)} times"  # type: ignore[union-attr]


def test_tuple_unpacking_traced() -> None:
    def apart(question: str) -> Answer:
        word, count = split(text=question)
        return calculator(question=word + as_text(count))

    node = graph_of(apart).nodes["calculator"]
    assert node.with_["question"] == "${split[0] + string(split[1])}"  # type: ignore[union-attr]


def test_build_returns_record_with_defaults() -> None:
    def made(question: str) -> Answer:
        found = calculator(question=question)
        return build(Answer, text=found.text)

    assert graph_of(made).output == {"text": "${found.text}", "citations": []}


def test_verify_adds_node() -> None:
    def judged(question: str) -> Answer:
        found = calculator(question=question)
        return verify(found, checks=numbers, against=question, accept=0.8)

    assert graph_of(judged).nodes["verified"] == VerifyNode(
        verify="${found}", checks=("numbers",), against="${input.question}", accept=0.8
    )


def test_loop_has_until_condition() -> None:
    def improved(question: str) -> Answer:
        def better(previous: Answer | None, turn: int) -> Answer:
            kind = classifier(text=as_text(turn) + question)
            return calculator(question=choose(has_value(previous), kind.label, question))

        return loop(better, at_most=5, until=lambda answer: has_value(answer.text))

    node = graph_of(improved).nodes["loop_"]
    assert isinstance(node, LoopNode)
    assert [*node.loop.nodes] == ["kind", "calculator"]
    assert (node.loop.at_most, node.loop.until, node.loop.output) == (5, "${calculator.text != null}", "${calculator}")


def test_workflow_call_is_call_node() -> None:
    def caller(url: str) -> Answer:
        readings = one_page(url=url)
        return writer(question="q", findings=readings)

    assert graph_of(caller).nodes["readings"] == CallNode.model_validate(
        {"call": "one_page", "with": {"url": "${input.url}"}}
    )


def test_call_omits_step_defaults() -> None:
    def default(question: str, documents: list[Document]) -> list[Passage]:
        return search(question, documents)

    assert graph_of(default).nodes["search"].with_ == {"query": "${input.question}", "documents": "${input.documents}"}  # type: ignore[union-attr]


def test_workflow_optional_inputs_keep_defaults() -> None:
    graph = one_page.graph
    assert graph.input["question"].default == "what?"
    assert graph.input["question"].optional
    assert not graph.input["url"].optional


def test_workflow_steps_lists_callees() -> None:
    assert [step.name for step in many.steps] == [
        "fetch", "reader", "writer", "one_page", "total", "classifier", "calculator",
    ]  # fmt: skip


def test_scope_released_name_reused() -> None:
    @workflow()
    def named(question: str) -> Answer:
        calculator(question=question)
        calculator(question=question)
        last = accepted(calculator(question=question), checks=numbers, against=question)
        calculator(question=question)
        return last

    assert list(named.graph.nodes) == ["calculator", "calculator_2", "last", "calculator_3"]


def test_tool_outside_workflow_runs() -> None:
    assert search(query="a", documents=[Document(source="s", text="abc")]) == [Passage(source="s", text="abc")]


def test_conditions_compute_known_values() -> None:
    assert all_of(True, not_(False), any_of(False, True), contains([1], 1), has_value(1))
    assert (length("abc"), or_else(None, 2), choose(False, 1, 2), as_text(1.5)) == (3, 2, 2, "1.5")


def test_read_output_returns_python_type() -> None:
    assert answer_from_documents.read({"text": None, "citations": []}) == Answer(text=None)
    with pytest.raises(InputError, match="not a"):
        answer_from_documents.read({"text": 3})


def test_agent_declared_in_python_has_card() -> None:
    assert classifier.card is not None
    assert classifier.card.description == "Says of what kind a text is."
    assert classifier.contract.output == classifier.signature.output
    assert Kind.model_validate({"label": "math"}) == classifier.read({"label": "math"})


def test_workflow_of_file_callable() -> None:
    known: Workflow[..., Any] = Workflow.from_graph(read(ANSWER_FROM_DOCUMENTS, "answer.yaml").graph)

    @workflow()
    def caller(question: str, documents: list[Document]) -> Answer:
        answer = known(question=question, documents=documents)
        return calculator(question=or_else(answer.text, ""))

    assert caller.graph.nodes["answer"] == CallNode.model_validate(
        {"call": "answer_from_documents", "with": {"question": "${input.question}", "documents": "${input.documents}"}}
    )
