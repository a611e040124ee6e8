# mypy: ignore-errors
# ruff: noqa: RET504, F841
# pyright: basic
"""Workflow functions with an invalid argument or call. Each docstring has code, message, marked text, and hint."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestra import (
    Answer,
    Document,
    abstain,
    accepted,
    build,
    first_of,
    has_value,
    loop,
    map_,
    or_else,
    quote,
    values,
    when,
)
from tests.workflows.ensemble import calculator, classifier, fetch, reader, search, writer


class Query(BaseModel):
    text: str


def wrong_list(question: str, documents: list[Document]) -> Answer:
    """W011: writer(findings=...) takes list[Reading], got list[Passage]: [].answer: required by Reading, absent in Passage
    at: writer(question=question, findings=passages)
    """  # noqa: E501
    passages = search(query=question, documents=documents)
    return writer(question=question, findings=passages)


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
    return first_of(
        when(kind.label == "maths", calculator(question=question)), otherwise=writer(question=question, findings=[])
    )


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


def skipped(question: str) -> Answer:
    """W009: skipped returns a value that may be missing
    at: return maybe
    help: first_of(maybe, otherwise=...), or require(maybe): without it, the run has no output
    """
    kind = classifier(text=question)
    maybe = when(kind.label == "math", calculator(question=question))
    return maybe


def skipped_used(question: str) -> Answer:
    """W009: maybe may be skipped, and here a value is needed
    at: maybe.text
    help: first_of(maybe, otherwise=...).text; or require(maybe), and what uses it is skipped with it
    """
    kind = classifier(text=question)
    maybe = when(kind.label == "math", calculator(question=question))
    return calculator(question=maybe.text)


def withheld_list(question: str, documents: list[Document]) -> Answer:
    """W009: readings is list[Maybe[Reading]]: some elements may be skipped or withheld
    at: writer(question=question, findings=readings)
    help: values(readings) for the list of those that are there
    """
    passages = search(query=question, documents=documents)
    readings = map_(
        lambda p: accepted(
            reader(question=question, context=p.text), checks=quote, against=p.text, otherwise=[abstain]
        ),
        passages,
    )
    return writer(question=question, findings=readings)


def withheld_one(question: str, documents: list[Document]) -> Answer:
    """W009: reading may be withheld, and here a value is needed
    at: writer(question=question, findings=[reading])
    help: first_of(reading, otherwise=...); or require(reading), and what uses it is withheld with it
    """
    reading = accepted(reader(question=question, context="x"), checks=quote, against="x", otherwise=[abstain])
    return writer(question=question, findings=[reading])


def returns(question: str) -> Answer:
    """W012: returns must return Answer, and returns Kind: .text: required by Answer, absent in Kind
    at: return classifier(text=question)
    """
    return classifier(text=question)


def nullable(question: str) -> Answer:
    """W011: calculator(question=...) takes str, got Quote | None
    at: calculator(question=r.answer)
    help: or_else(r.answer, ...) gives a default for None
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
    at: return build(Answer, text=question)
    help: a workflow calls at least one agent, tool or workflow; what calls none is a plain function
    """
    return build(Answer, text=question)


def new_wrong(question: str, n: int) -> Answer:
    """W011: build(Answer, text=...) takes str | None, got int
    at: build(Answer, text=n)
    help: did you mean as_text(n)?
    """
    calculator(question=question)
    return build(Answer, text=n)


def new_missing(question: str, n: int) -> Answer:
    """W010: Answer needs the field 'text'
    at: build(Answer, citations=[question])
    help: build(Answer, text=...)
    """
    calculator(question=question)
    return build(Answer, citations=[question])


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


def never_none(question: str) -> Answer:
    """W008: question is str: it is never None
    at: or_else(question, "")
    help: leave or_else() out
    """
    return calculator(question=or_else(question, ""))


def values_of_one(question: str) -> Answer:
    """W016: values() takes the list that map_ gave
    at: values(found)
    help: require(found) for single values
    """
    found = accepted(calculator(question=question), checks=quote, otherwise=[abstain])
    return writer(question=question, findings=values(found))


def guarded_inside(question: str) -> Answer:
    """W009: calculator may be skipped, and here a value is needed
    at: first_of(maybe, otherwise=found[0])
    help: first_of(calculator, otherwise=...); or require(calculator), and what uses it is skipped with it
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
    help: checks=quote & numbers, or quote | entailment
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
    """W016: the type of the loop cannot be inferred: it depends only on the previous turn
    at: loop(lambda previous: previous, at_most=3, until=lambda answer: has_value(answer.text))
    help: give the body a first value: or_else(previous, ...)
    """
    return loop(lambda previous: previous, at_most=3, until=lambda answer: has_value(answer.text))


def plain_lambda(question: str, n: int) -> Answer:
    """W016: when() guards calls, and question calls nothing
    at: when(n > 2, lambda: question)
    help: choose(condition, question, ...)
    """
    return calculator(question=first_of(when(n > 2, lambda: question), otherwise="x"))


def accepted_twice(question: str) -> Answer:
    """W016: once has its checks already
    at: accepted(once, checks=quote)
    help: checks=quote & numbers
    """
    once = accepted(calculator(question=question), checks=quote)
    return accepted(once, checks=quote)


def wide(question: str) -> Answer:
    """W010: calculator has no input 'größe'
    at: calculator(größe="ä" + question)
    help: calculator(question: str) -> Answer
    """
    é, ü = "é", calculator(größe="ä" + question)
    return ü
