# mypy: ignore-errors
# ruff: noqa: E501, RET504, F841, BLE001, S110, SIM105, SIM201, RUF059, UP032, PERF401
# pyright: basic
"""Workflow functions with a mistake each. The docstring says the code, the message, the text under the caret, and the help."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from orchestra import (
    Answer,
    Document,
    abstain,
    accepted,
    first_of,
    loop,
    map_,
    new,
    or_else,
    present,
    quote,
    values,
    when,
)
from orchestra.workflow.steps import Workflow, workflow
from tests.workflow.ensemble import calculator, classifier, fetch, reader, search, split, writer


class Query(BaseModel):
    text: str


def if_(question: str, documents: list[Document]) -> Answer:
    """W005: kind.label == 'math' has no truth value yet
    at: kind.label == "math"
    help: return first_of(when(kind.label == 'math', lambda: calculator(question=question)), otherwise=writer(question=question, findings=[]))
    """
    kind = classifier(text=question)
    if kind.label == "math":
        return calculator(question=question)
    return writer(question=question, findings=[])


def if_assign(question: str) -> Answer:
    """W005: kind.label == 'math' has no truth value yet
    at: kind.label == "math"
    help: answer = first_of(when(all_of(kind.label == 'math', question != ''), lambda: calculator(question=question)), when(kind.label == 'lookup', lambda: writer(question=question, findings=[])), otherwise=calculator(question='x'))
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
    help: map_(lambda p: reader(question=question, context=p.text), filter_(lambda p: p.score > 0.5, passages))
    """
    passages = search(query=question, documents=documents)
    readings = [reader(question=question, context=p.text) for p in passages if p.score > 0.5]
    return writer(question=question, findings=readings)


def for_append(question: str, documents: list[Document]) -> Answer:
    """W004: search (list[Passage]) has no length yet: it cannot be looped over or unpacked
    at: for p in search(query=question, documents=documents):
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


def wrong_list(question: str, documents: list[Document]) -> Answer:
    """W011: writer(findings=...) takes list[Reading], got list[Passage]: [].answer: required by Reading, absent in Passage
    at: writer(question=question, findings=passages)
    """
    passages = search(query=question, documents=documents)
    return writer(question=question, findings=passages)


def fstring(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: f"Compute: {question}"
    help: 'Compute: ' + question
    """
    return calculator(question=f"Compute: {question}")


def fstring_spec(question: str) -> Answer:
    """W005: question (str) has no value yet
    at: f"Compute: {question:>10}"
    help: 'text ' + question; or give the agent another input, and name it in its prompt
    """
    return calculator(question=f"Compute: {question:>10}")


def str_(question: str) -> Answer:
    """W005: this text holds the name of a value, not the value: 'Compute <question: str, known when the workflow runs>'
    at: calculator(question="Compute " + str(question))
    help: 'text ' + value, without str()
    """
    return calculator(question="Compute " + str(question))


def foreign(question: str, documents: list[Document]) -> Answer:
    """W014: json.dumps got a value that is not known yet (passages (list[Passage]) has no value yet)
    at: json.dumps(passages)
    help: make it a tool: @tool(effect='pure') on a function that calls json.dumps
    """
    passages = search(query=question, documents=documents)
    return calculator(question=json.dumps(passages))


def regex(question: str) -> Answer:
    """W014: re.match got a value that is not known yet (TypeError: expected string or bytes-like object, got 'placeholder')
    at: re.match("a", question)
    help: make it a tool: @tool(effect='pure') on a function that calls re.match
    """
    if re.match("a", question):
        pass
    return calculator(question=question)


def join(question: str) -> Answer:
    """W014: ', '.join got a value that is not known yet (TypeError: sequence item 0: expected str instance, placeholder found)
    at: ", ".join([question, "x"])
    help: make it a tool: @tool(effect='pure') on a function that calls ', '.join
    """
    return calculator(question=", ".join([question, "x"]))


def model(question: str) -> Answer:
    """W014: Query got a value that is not known yet (ValidationError: 1 validation error for Query)
    at: Query(text=question)
    help: new(Query, field=...) makes a model of values that are not known yet
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
        when(kind.label in ("math", "lookup"), lambda: calculator(question=question)), otherwise=writer(question=question, findings=[])
    )


def ternary(question: str, short: bool) -> Answer:
    """W005: short has no truth value yet
    at: question if short else "x"
    help: choose(short, question, 'x')
    """
    return calculator(question=question if short else "x")


def ternary_calls(question: str, short: bool) -> Answer:
    """W005: short has no truth value yet
    at: calculator(question=question) if short else writer(question=question, findings=[])
    help: first_of(when(short, lambda: calculator(question=question)), otherwise=writer(question=question, findings=[]))
    """
    return calculator(question=question) if short else writer(question=question, findings=[])


def model_for_str(question: str, documents: list[Document]) -> Answer:
    """W011: reader(context=...) takes str, got Passage
    at: reader(question=question, context=passages[0])
    help: did you mean passages[0].source or passages[0].text?
    """
    passages = search(query=question, documents=documents)
    first = reader(question=question, context=passages[0])
    return writer(question=question, findings=[first])


def list_for_one(question: str, documents: list[Document]) -> Answer:
    """W011: calculator(question=...) takes str, got list[Passage]
    at: calculator(question=passages)
    help: map_(lambda item: ... item.source ..., passages) for each element, or passages[0].source for the first
    """
    passages = search(query=question, documents=documents)
    return calculator(question=passages)


def one_for_list(question: str, documents: list[Document]) -> Answer:
    """W011: writer(findings=...) takes list[Reading], got Reading
    at: writer(question=question, findings=r)
    help: did you mean [r]?
    """
    r = reader(question=question, context="x")
    return writer(question=question, findings=r)


def never(question: str) -> Answer:
    """W008: kind.label is Literal['math', 'lookup']: it is never 'maths'
    at: kind.label == "maths"
    help: did you mean 'math'?
    """
    kind = classifier(text=question)
    return first_of(when(kind.label == "maths", calculator(question=question)), otherwise=writer(question=question, findings=[]))


def is_none(question: str) -> Answer:
    """W013: `is` looks past a placeholder, so it would be decided now
    at: question is None
    help: return first_of(when(not_(present(question)), lambda: calculator(question='')), otherwise=calculator(question=question))
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


def misspelt(question: str) -> Answer:
    """W010: calculator has no input 'qestion'
    at: calculator(qestion=question)
    help: did you mean 'question'?
    """
    return calculator(qestion=question)


def missing_arg(question: str) -> Answer:
    """W010: writer: missing a required argument: 'findings'
    at: writer(question=question)
    help: writer(question: str, findings: list[Reading]) -> Answer
    """
    return writer(question=question)


def too_many(question: str) -> Answer:
    """W010: calculator: too many positional arguments
    at: calculator(question, question)
    help: calculator(question: str) -> Answer
    """
    return calculator(question, question)


def leak(question: str, documents: list[Document]) -> Answer:
    """W006: p.text belongs to another map_ body or workflow
    at: calculator(question=inner[0])
    help: return it from the body, and use what map_ gives
    """
    inner: list[Any] = []
    passages = search(query=question, documents=documents)
    map_(lambda p: inner.append(p.text) or reader(question=question, context=p.text), passages)
    return calculator(question=inner[0])


def skipped(question: str) -> Answer:
    """W009: skipped returns a value that may be missing
    at: return maybe
    help: first_of(maybe, otherwise=...), or needed(maybe): without it, the run has no output
    """
    kind = classifier(text=question)
    maybe = when(kind.label == "math", calculator(question=question))
    return maybe


def skipped_used(question: str) -> Answer:
    """W009: maybe may be skipped, and here a value is needed
    at: maybe.text
    help: first_of(maybe, otherwise=...).text; or needed(maybe), and what uses it is skipped with it
    """
    kind = classifier(text=question)
    maybe = when(kind.label == "math", calculator(question=question))
    return calculator(question=maybe.text)


def withheld_list(question: str, documents: list[Document]) -> Answer:
    """W009: readings is list[Guarded[Reading]]: some elements may be skipped or withheld
    at: writer(question=question, findings=readings)
    help: values(readings) for the list of those that are there
    """
    passages = search(query=question, documents=documents)
    readings = map_(
        lambda p: accepted(reader(question=question, context=p.text), checks=quote, against=p.text, otherwise=[abstain]), passages
    )
    return writer(question=question, findings=readings)


def withheld_one(question: str, documents: list[Document]) -> Answer:
    """W009: reading may be withheld, and here a value is needed
    at: writer(question=question, findings=[reading])
    help: first_of(reading, otherwise=...); or needed(reading), and what uses it is withheld with it
    """
    reading = accepted(reader(question=question, context="x"), checks=quote, against="x", otherwise=[abstain])
    return writer(question=question, findings=[reading])


def returns(question: str) -> Answer:
    """W012: returns must return Answer, and returns Kind: .text: required by Answer, absent in Kind
    at: return classifier(text=question)
    """
    return classifier(text=question)


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


def nullable(question: str) -> Answer:
    """W011: calculator(question=...) takes str, got str | None
    at: calculator(question=r.answer)
    help: or_else(r.answer, ...) says what stands in for None
    """
    r = reader(question=question, context="x")
    return calculator(question=r.answer)


def not_nullable(url: str) -> Answer:
    """W008: page.title is str: it is never None
    at: or_else(page.title, "")
    help: leave or_else() out
    """
    page = fetch(url=url)
    return calculator(question=or_else(page.title, ""))


def known_if(question: str) -> Answer:
    """W015: this condition is known now: True
    at: when(3 > 2, calculator(question=question))
    help: x = a if flag else b
    """
    return first_of(when(3 > 2, calculator(question=question)), otherwise=writer(question=question, findings=[]))


def known_map(question: str) -> Answer:
    """W015: these items are known now
    at: map_(lambda x: reader(question=question, context=x), ["a", "b"])
    help: [reader(question=question, context=x) for x in ['a', 'b']]
    """
    rs = map_(lambda x: reader(question=question, context=x), ["a", "b"])
    return writer(question=question, findings=rs)


def plain_when(question: str, n: int) -> Answer:
    """W016: when() guards calls, and question calls nothing
    at: when(n > 2, question)
    help: choose(condition, question, ...)
    """
    q = first_of(when(n > 2, question), otherwise="x")
    return calculator(question=q)


def used_when(question: str, n: int) -> Answer:
    """W016: a is used already, as if it were sure to be there
    at: when(n > 2, a)
    help: when(condition, lambda: calculator(...))
    """
    a = calculator(question=question)
    b = calculator(question=or_else(a.text, ""))
    return first_of(when(n > 2, a), otherwise=b)


def plus(question: str, n: int) -> Answer:
    """W008: 'n is ' + n is not defined: str + int
    at: "n is " + n
    help: as_text(n) makes a text of it
    """
    return calculator(question="n is " + n)


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
    help: bind a new name, or make a new value with new(Model, field=...)
    """
    documents[0].text = "x"
    return calculator(question=question)


def hidden(question: str) -> Answer:
    """W005: question has no truth value yet
    at: if question:
    help: say what is asked: first_of(when(length(question) > 0, lambda: ...), otherwise=...)
    """
    try:
        if question:
            pass
    except Exception:
        pass
    return calculator(question=question)


def accepted_expr(question: str) -> Answer:
    """W016: accepted() takes the result of one call, and reader.answer is not one
    at: accepted(reader(question=question, context="x").answer, checks=quote)
    help: accepted(reader(...), checks=...).answer
    """
    r = accepted(reader(question=question, context="x").answer, checks=quote)
    return calculator(question=question)


def accepted_list(question: str, documents: list[Document]) -> Answer:
    """W016: reader is a list: each element is accepted by itself
    at: accepted(map_(lambda d: reader(question=question, context=d.text), documents), checks=quote)
    help: map_(lambda item: accepted(..., checks=...), ...)
    """
    r = accepted(map_(lambda d: reader(question=question, context=d.text), documents), checks=quote)
    return writer(question=question, findings=r)


def function_value(question: str) -> Answer:
    """W007: reader is a function, and not a value
    at: calculator(question=reader)
    help: call it: reader(...)
    """
    return calculator(question=reader)


def nothing(question: str) -> Answer:
    """W019: nothing calls nothing
    at: return new(Answer, text=question)
    help: a workflow calls at least one agent, tool or workflow; what calls none is a plain function
    """
    return new(Answer, text=question)


def new_wrong(question: str, n: int) -> Answer:
    """W011: new(Answer, text=...) takes str | None, got int
    at: new(Answer, text=n)
    help: did you mean as_text(n)?
    """
    calculator(question=question)
    return new(Answer, text=n)


def new_missing(question: str, n: int) -> Answer:
    """W010: Answer needs the field 'text'
    at: new(Answer, citations=[question])
    help: new(Answer, text=...)
    """
    calculator(question=question)
    return new(Answer, citations=[question])


def unsure(question: str) -> Answer:
    """W009: a is missing where all its options are, and here a value is needed
    at: a.text
    help: a = first_of(..., otherwise=...)
    """
    a = first_of(when(question == "x", lambda: calculator(question=question)))
    return calculator(question=or_else(a.text, ""))


def cond(question: str) -> Answer:
    """W008: when takes a condition, and question is str
    at: when(question, lambda: calculator(question=question))
    help: question == ...
    """
    return first_of(when(question, lambda: calculator(question=question)), otherwise=calculator(question="x"))


def options(question: str) -> Answer:
    """W016: retry=30 is not a number of attempts
    at: calculator.options(retry=30)(question=question)
    help: retry=3, from 1 to 10
    """
    return calculator.options(retry=30)(question=question)


def options2(question: str) -> Answer:
    """W016: calculator.options has no 'timout'
    at: calculator.options(timout=30)
    help: did you mean 'timeout'?
    """
    return calculator.options(timout=30)(question=question)


def options3(question: str) -> Answer:
    """W016: calculator: timeout: Input should be greater than 0
    at: calculator.options(timeout=-1)(question=question)
    """
    return calculator.options(timeout=-1)(question=question)


def fallback(question: str) -> Answer:
    """W011: calculator.options(fallback=...) takes Answer, got 'none'
    at: calculator.options(fallback="none")(question=question)
    """
    return calculator.options(fallback="none")(question=question)


def loop_(question: str) -> Answer:
    """W002: previous may be None (Answer | None), and None has no field 'text'
    at: previous.text
    help: or_else(previous, ...) says what stands in for None
    """
    return loop(lambda previous: calculator(question=or_else(previous.text, "")), at_most=5, until=lambda a: present(a.text))


def unsliced_field(url: str) -> Answer:
    """W003: page is Page: it has fields, not keys
    at: page["title"]
    help: write page.title
    """
    page = fetch(url=url)
    return calculator(question=page["title"])


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


def never_none(question: str) -> Answer:
    """W008: question is str: it is never None
    at: or_else(question, "")
    help: leave or_else() out
    """
    return calculator(question=or_else(question, ""))


def values_of_one(question: str) -> Answer:
    """W016: values() takes the list that map_ gave
    at: values(found)
    help: needed(found) for single values
    """
    found = accepted(calculator(question=question), checks=quote, otherwise=[abstain])
    return writer(question=question, findings=values(found))


def fallen_through(question: str, documents: list[Document]) -> Answer:
    """W005: passages has no truth value yet
    at: if passages:
    help: say what is asked: first_of(when(length(passages) > 0, lambda: ...), otherwise=...)
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


def guarded_inside(question: str) -> Answer:
    """W009: calculator may be skipped, and here a value is needed
    at: first_of(maybe, otherwise=found[0])
    help: first_of(calculator, otherwise=...); or needed(calculator), and what uses it is skipped with it
    """
    found: list[Any] = []
    maybe = when(question != "", lambda: found.append(calculator(question=question)) or found[0])
    return first_of(maybe, otherwise=found[0])


def too_long(question: str) -> Answer:
    """W008: question * 2 is not defined: str * int
    at: question * 2
    """
    return calculator(question=question + question * 2)


def no_checks(question: str) -> Answer:
    """W016: checks='quote' are no checks
    at: accepted(calculator(question=question), checks="quote")
    help: checks=quote & numbers
    """
    return accepted(calculator(question=question), checks="quote")


def accepted_late(question: str) -> Answer:
    """W016: accepted() comes first, and maybe may be missing already
    at: accepted(maybe, checks=quote)
    help: when(condition, accepted(...))
    """
    maybe = when(question != "", calculator(question=question))
    return first_of(accepted(maybe, checks=quote), otherwise=calculator(question="x"))


def missing_nothing(question: str, documents: list[Document]) -> Answer:
    """W016: the body takes one element, and this one takes 2 arguments
    at: map_(lambda a, b: calculator(question=a), documents)
    help: map_(lambda item: ..., items)
    """
    return map_(lambda a, b: calculator(question=a), documents)


def rooted(url: str) -> Answer:
    """W016: the type of what the loop gives cannot be found: it is made of the turn before alone
    at: loop(lambda previous: previous, at_most=3, until=lambda answer: present(answer.text))
    help: give the body a first value: or_else(previous, ...)
    """
    return loop(lambda previous: previous, at_most=3, until=lambda answer: present(answer.text))
