# mypy: ignore-errors
# ruff: noqa: E501, BLE001
# pyright: basic
"""Workflow functions with plain Python branches, `try` and loops. Each docstring has the error: code, message, marked text, and hint."""

from __future__ import annotations

from orchestra import Answer, Reading, accepted, choose, entailment, has_value, loop, map_, or_else, quote, retry
from tests.workflows.ensemble import calculator, fetch, reader


def else_plain(question: str, n: int) -> Answer:
    """W005: n > 2 has no truth value yet
    at: n > 2
    help: first_of(when(not_(n > 2), lambda: calculator(question=question)), otherwise=lambda: None)
    """
    return None if n > 2 else calculator(question=question)


def elif_plain(question: str, n: int) -> Answer:
    """W005: n > 2 has no truth value yet
    at: n > 2
    help: x = first_of(when(n > 2, lambda: calculator(question='a')), otherwise=lambda: first_of(when(not_(n > 1), lambda: calculator(question='b')), otherwise=lambda: None))
    """
    if n > 2:
        x = calculator(question="a")
    elif n > 1:
        x = None
    else:
        x = calculator(question="b")
    return x


def while_(question: str, n: int) -> Answer:
    """W005: n > 2 has no truth value yet
    at: n > 2
    help: loop(lambda previous: ..., at_most=5, until=lambda value: ...)
    """
    while n > 2:
        answer = calculator(question=question)
    return answer


def tried(question: str) -> Answer:
    """W030: an `except` around this call never sees it fail
    at: calculator(question=question)
    help: ...options(fallback=lambda: ...)(...), or retry=3
    """
    try:
        answer = calculator(question=question)
    except Exception:
        answer = calculator(question="else")
    return answer


def of_none(question: str) -> Answer:
    """W013: `is` looks past a placeholder, so it would be decided now
    at: previous is not None
    help: or_else(previous, ...).text
    """
    return loop(
        lambda previous: calculator(question=or_else(previous.text, "") if (previous is not None) else ""),
        at_most=3,
        until=lambda answer: has_value(answer.text),
    )


def both_checks(question: str) -> Reading:
    """W005: the check quote has no truth value
    at: quote and entailment
    help: quote & numbers for both, quote | numbers for one of two
    """
    return accepted(reader(question=question, context=question), checks=quote and entailment, against=question)


def one_action(question: str) -> Reading:
    """W016: otherwise=retry is not a list of actions
    at: accepted(reader(question=question, context=question), checks=quote, otherwise=retry)
    help: otherwise=[retry]
    """
    return accepted(reader(question=question, context=question), checks=quote, otherwise=retry)


def no_until(question: str) -> Answer:
    """W016: loop() needs a function as `until`
    at: loop(lambda previous: calculator(question=question), at_most=3)
    help: loop(lambda previous: ..., at_most=5, until=lambda value: ...)
    """
    return loop(lambda previous: calculator(question=question), at_most=3)


def concurrency(questions: list[str], n: int) -> list[Answer]:
    """W016: concurrency must be a number, known when the workflow is written, and is n, a value of the workflow
    at: map_(lambda one: calculator(question=one), questions, concurrency=n)
    help: concurrency=8
    """
    return map_(lambda one: calculator(question=one), questions, concurrency=n)


def at_least(questions: list[str], n: int) -> list[Answer]:
    """W016: at_least must be `all` or a number, known when the workflow is written, and is n, a value of the workflow
    at: map_(lambda one: calculator(question=one), questions, at_least=n)
    help: at_least="all"
    """
    return map_(lambda one: calculator(question=one), questions, at_least=n)  # type: ignore[arg-type]


def at_least_of_nothing(questions: list[str]) -> list[str]:
    """W016: at_least is for a body that calls something, and this one calls nothing
    at: map_(lambda one: one + "!", questions, at_least="all")
    help: leave it out; or when(length(items) >= 3, lambda: ...) around what uses the list
    """
    return map_(lambda one: one + "!", questions, at_least="all")


def attempts(question: str, n: int) -> Answer:
    """W016: retry=n is a value of the workflow
    at: calculator.options(retry=n)(question=question)
    help: retry=3: a number that is known when the workflow is written
    """
    return calculator.options(retry=n)(question=question)


def nothing(question: str) -> None:
    """W019: nothing returns None, which is the same in every run
    at: calculator(question=question)
    help: return what a call gives, or build(Model, field=...)
    """
    calculator(question=question)


def chosen(question: str, n: int) -> str:
    """W029: fetch has effects (idempotent), and fetch(...) in choose always runs it
    at: choose(n > 2, fetch(url="a"), fetch(url="b"))
    help: first_of(when(condition, lambda: ...), otherwise=lambda: ...)
    """
    return choose(n > 2, fetch(url="a"), fetch(url="b")).title
