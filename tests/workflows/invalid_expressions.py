# mypy: ignore-errors
# ruff: noqa: E501, F841, BLE001, SIM201, RUF059
# pyright: basic
"""Workflow functions that need an unknown value. Each docstring has the error: code, message, marked
text, and hint. `at (3.12):` is the marked text from that version of Python on, which marks expressions more precisely.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from orchestra import Answer, Document, as_text, first_of, has_value, length, loop, map_, or_else, when
from orchestra.workflows.python.steps import Workflow, workflow
from tests.workflows.ensemble import calculator, classifier, reader, search, split, writer


class Query(BaseModel):
    text: str


def if_(question: str, documents: list[Document]) -> Answer:
    """W005: kind.label == 'math' has no truth value yet
    at: kind.label == "math"
    help: return first_of(when(kind.label == 'math', lambda: calculator(question=question)), otherwise=lambda: writer(question=question, findings=[]))
    """
    kind = classifier(text=question)
    if kind.label == "math":
        return calculator(question=question)
    return writer(question=question, findings=[])


def if_assign(question: str) -> Answer:
    """W005: kind.label == 'math' has no truth value yet
    at: kind.label == "math"
    help: answer = first_of(when(all_of(kind.label == 'math', question != ''), lambda: calculator(question=question)), otherwise=lambda: first_of(when(kind.label == 'lookup', lambda: writer(question=question, findings=[])), otherwise=lambda: calculator(question='x')))
    """
    kind = classifier(text=question)
    if kind.label == "math" and question != "":
        answer = calculator(question=question)
    elif kind.label == "lookup":
        answer = writer(question=question, findings=[])
    else:
        answer = calculator(question="x")
    return answer


def comprehension(question: str, documents: list[Document]) -> Answer:
    """W004: passages (list[Passage]) has no length yet: it cannot be looped over or unpacked
    at: [reader(question=question, context=p.text) for p in passages if p.score > 0.5]
    at (3.13): passages
    help: map_(lambda p: reader(question=question, context=p.text), filter_(lambda p: p.score > 0.5, passages))
    """
    passages = search(query=question, documents=documents)
    readings = [reader(question=question, context=p.text) for p in passages if p.score > 0.5]
    return writer(question=question, findings=readings)


def for_append(question: str, documents: list[Document]) -> Answer:
    """W004: search (list[Passage]) has no length yet: it cannot be looped over or unpacked
    at: for p in search(query=question, documents=documents):
    at (3.13): search(query=question, documents=documents)
    help: readings = map_(lambda p: reader(question=question, context=p.text), search(query=question, documents=documents))
    """
    readings = []
    for p in search(query=question, documents=documents):
        readings.append(reader(question=question, context=p.text))
    return writer(question=question, findings=readings)


def field(question: str, documents: list[Document]) -> Answer:
    """W002: p: Passage has no field 'txt'; did you mean 'text'?
    at: p.txt
    """
    passages = search(query=question, documents=documents)
    readings = map_(lambda p: reader(question=question, context=p.txt), passages)
    return writer(question=question, findings=readings)


def fstring(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: f"Compute: {question}"
    at (3.12): {question}
    help: 'Compute: ' + question
    """
    return calculator(question=f"Compute: {question}")


def fstring_spec(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: f"Compute: {question:>10}"
    at (3.12): {question:>10}
    help: 'text ' + question; or give the agent another input, and name it in its prompt
    """
    return calculator(question=f"Compute: {question:>10}")


def str_(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: str(question)
    help: question, without str(); repr(question) shows its expression
    """
    return calculator(question="Compute " + str(question))


def str_cut(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: str(question)
    help: question, without str(); repr(question) shows its expression
    """
    return calculator(question=str(question).split()[0])


def str_number(question: str, documents: list[Document]) -> Answer:
    """W005: length(documents) (int) has no value yet
    at: str(length(documents))
    help: as_text(length(documents)); repr(length(documents)) shows its expression
    """
    return calculator(question=str(length(documents)).upper())


def str_record(question: str) -> Answer:
    """W005: kind (Kind) has no value yet
    at: str(kind)
    help: do it in a @tool(effect='pure'); repr(kind) shows its expression
    """
    kind = classifier(text=question)
    return calculator(question=str(kind)[:10])


def str_guarded(question: str) -> Answer:
    """W009: kind may be skipped, and here a value is needed
    at: str(kind)
    help: first_of(kind, otherwise=...); or require(kind), and what uses it is skipped with it
    """
    kind = when(question != "", lambda: classifier(text=question))
    return calculator(question=str(kind)[:10])


def repr_(question: str) -> Answer:
    """W005: this text holds the name of a value, not the value: 'Compute <question: str, known when the workflow runs>'
    at: calculator(question="Compute " + repr(question))
    help: 'text ' + value, without repr()
    """
    return calculator(question="Compute " + repr(question))


def foreign(question: str, documents: list[Document]) -> Answer:
    """W014: this line hands a value of the workflow to code that cannot wait for it: passages (list[Passage]) has no value yet
    at: json.dumps(passages)
    help: do this step in a function under @tool(effect='pure'), and call that here
    """
    passages = search(query=question, documents=documents)
    return calculator(question=json.dumps(passages))


def regex(question: str) -> Answer:
    """W014: this line hands a value of the workflow to code that cannot wait for it: TypeError: expected string or bytes-like object, got 'placeholder'
    at: re.match("a", question)
    help: do this step in a function under @tool(effect='pure'), and call that here
    """
    if re.match("a", question):
        pass
    return calculator(question=question)


def join(question: str) -> Answer:
    """W014: this line hands a value of the workflow to code that cannot wait for it: TypeError: sequence item 0: expected str instance, placeholder found
    at: ", ".join([question, "x"])
    help: do this step in a function under @tool(effect='pure'), and call that here
    """
    return calculator(question=", ".join([question, "x"]))


def model(question: str) -> Answer:
    """W014: this line hands a value of the workflow to code that cannot wait for it: ValidationError: 1 validation error for Query
    at: Query(text=question)
    help: build(Query, field=...) makes a model of values that are not known yet
    """
    q = Query(text=question)
    return calculator(question=q.text)


def and_(question: str) -> Answer:
    """W005: kind.label == 'math' has no truth value yet
    at: kind.label == "math" and question != ""
    help: all_of(kind.label == 'math', question != '')
    """
    kind = classifier(text=question)
    maths = when(kind.label == "math" and question != "", calculator(question=question))
    return first_of(maths, otherwise=writer(question=question, findings=[]))


def chained(question: str, n: int) -> Answer:
    """W005: n > 0 has no truth value yet
    at: 0 < n < 5
    help: any_of(all_of(0 < n, n < 5), not_(question == ''))
    """
    maths = when(0 < n < 5 or not question == "", calculator(question=question))
    return first_of(maths, otherwise=writer(question=question, findings=[]))


def in_(question: str) -> Answer:
    """W005: kind.label == 'math' has no truth value yet
    at: kind.label in ("math", "lookup")
    help: contains(('math', 'lookup'), kind.label)
    """
    kind = classifier(text=question)
    return first_of(
        when(kind.label in ("math", "lookup"), lambda: calculator(question=question)),
        otherwise=writer(question=question, findings=[]),
    )


def ternary(question: str, short: bool) -> Answer:
    """W005: short has no truth value yet
    at: question if short else "x"
    at (3.12): short
    help: choose(short, question, 'x')
    """
    return calculator(question=question if short else "x")


def ternary_calls(question: str, short: bool) -> Answer:
    """W005: short has no truth value yet
    at: calculator(question=question) if short else writer(question=question, findings=[])
    at (3.12): short
    help: first_of(when(short, lambda: calculator(question=question)), otherwise=lambda: writer(question=question, findings=[]))
    """
    return calculator(question=question) if short else writer(question=question, findings=[])


def is_none(question: str) -> Answer:
    """W013: `is` looks past a placeholder, so it would be decided now
    at: question is None
    help: return first_of(when(not_(has_value(question)), lambda: calculator(question='')), otherwise=lambda: calculator(question=question))
    """
    if question is None:
        return calculator(question="")
    return calculator(question=question)


def match_(question: str, documents: list[Document]) -> Answer:
    """W013: `match` looks past a placeholder, so it would be decided now
    at: [one]
    help: first_of(when(length(x) == 1, lambda: ...), otherwise=...)
    """
    match documents:
        case [one]:
            return calculator(question=one.text)
    return calculator(question=question)


def method(question: str) -> Answer:
    """W002: question.strip() cannot run: question is a str that is not known yet
    at: question.strip
    help: do it in a @tool(effect='pure') that takes question
    """
    return calculator(question=question.strip().lower())


def leak(question: str, documents: list[Document]) -> Answer:
    """W006: p.text belongs to another map_ body or workflow
    at: calculator(question=inner[0])
    help: return it from the body, and use what map_ gives
    """
    inner: list[Any] = []
    passages = search(query=question, documents=documents)
    map_(lambda p: inner.append(p.text) or reader(question=question, context=p.text), passages)
    return calculator(question=inner[0])


def instance(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: isinstance(question, str)
    help: let an agent or a tool return a Literal, and compare that: kind.label == '...'
    """
    if isinstance(question, str):
        return calculator(question=question)
    return calculator(question="")


def slice_(question: str, documents: list[Document]) -> Answer:
    """W003: search cannot be sliced: its length is not known yet
    at: search(query=question, documents=documents)[:3]
    help: filter_(lambda item: ..., search), or do it in a @tool(effect='pure')
    """
    passages = search(query=question, documents=documents)[:3]
    return calculator(question=passages[0].text)


def await_(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: len(question)
    help: length(question)
    """
    return calculator(question=len(question))


def floor(question: str, n: int) -> Answer:
    """W005: n (int) has no value yet
    at: n // 2
    help: do it in a @tool(effect='pure')
    """
    x = n // 2
    return calculator(question=question)


def assign(question: str, documents: list[Document]) -> Answer:
    """W005: documents[0] cannot be changed: values never change
    at: documents[0].text
    help: bind a new name, or make a new value with build(Model, field=...)
    """
    documents[0].text = "x"
    return calculator(question=question)


def hidden(question: str) -> Answer:
    """W005: question has no truth value yet
    at: if question:
    at (3.12): question
    help: state the condition: first_of(when(length(question) > 0, lambda: ...), otherwise=...)
    """
    try:
        if question:
            pass
    except Exception:
        pass
    return calculator(question=question)


def loop_(question: str) -> Answer:
    """W002: previous may be None (Answer | None), and None has no field 'text'
    at: previous.text
    help: or_else(previous, Answer(...)).text gives a default for None
    """
    return loop(
        lambda previous: calculator(question=or_else(previous.text, "")), at_most=5, until=lambda a: has_value(a.text)
    )


def beyond(question: str) -> Answer:
    """W003: words: tuple[str, int] has 2 elements, and no [2]
    at: words[2]
    """
    words = split(text=question)
    return calculator(question=words[2])


def unpacked(question: str, documents: list[Document]) -> Answer:
    """W004: search (list[Passage]) has no length yet: it cannot be looped over or unpacked
    at: first, second
    help: items = search(query=question, documents=documents); first, second = items[0], items[1]
    """
    first, second = search(query=question, documents=documents)
    return calculator(question=first.text)


def negated(question: str, short: bool) -> Answer:
    """W005: short has no truth value yet
    at: not short
    help: not_(short)
    """
    return first_of(when(not short, lambda: calculator(question=question)), otherwise=calculator(question="x"))


def inverted(question: str, short: bool) -> Answer:
    """W005: short (bool) has no value yet
    at: ~short
    help: not_(short)
    """
    return first_of(when(~short, lambda: calculator(question=question)), otherwise=calculator(question="x"))


def fallen_through(question: str, documents: list[Document]) -> Answer:
    """W005: passages has no truth value yet
    at: if passages:
    at (3.12): passages
    help: state the condition: first_of(when(length(passages) > 0, lambda: ...), otherwise=...)
    """
    passages = search(query=question, documents=documents)
    if passages:
        return calculator(question=passages[0].text)
    raise LookupError(question)


def another_workflow(question: str) -> Answer:
    """W006: text belongs to another map_ body or workflow
    at: calculator(question=stolen[0])
    help: return it from the body, and use what map_ gives
    """
    stolen: list[Any] = []

    def other(text: str) -> Answer:
        stolen.append(text)
        return calculator(question=text)

    made: Workflow[..., Any] = workflow()(other)
    made.graph  # noqa: B018
    return calculator(question=stolen[0])


def hashed(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: {question: 1}
    help: a list; or do it in a @tool(effect='pure')
    """
    known = {question: 1}
    return calculator(question=question)


def sorted_(question: str, documents: list[Document]) -> Answer:
    """W004: documents (list[Document]) has no length yet: it cannot be looped over or unpacked
    at: sorted(documents, key=lambda d: d.text)
    help: do it in a @tool(effect='pure') that calls sorted
    """
    first = sorted(documents, key=lambda d: d.text)
    return calculator(question=first[0].text)


def greatest(question: str, a: int, b: int) -> Answer:
    """W005: b > a has no truth value yet
    at: max(a, b)
    help: choose(a > b, a, b)
    """
    return calculator(question=as_text(max(a, b)))


def all_(question: str, a: bool, b: bool) -> Answer:
    """W005: a has no truth value yet
    at: all([a, b])
    help: all_of(a, b)
    """
    return first_of(when(all([a, b]), lambda: calculator(question=question)), otherwise=calculator(question="x"))
