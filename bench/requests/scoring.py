"""The verdict about an answer: right, wrong, or no answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from bench.requests.facts import finds_nothing, gives_nothing, occurs, read
from bench.requests.worlds import Request

Status: TypeAlias = Literal["done", "refused", "failed"]
"""`refused`: the system withheld an answer or found no way to give one, and reported it. `failed`: an error."""
Verdict: TypeAlias = Literal["right", "wrong", "no answer"]

ANSWER_FIELDS = ("answer", "text", "label", "value")
"""Fields with an answer; the others beside them are its evidence or its confidence."""
NO_CONTENT = frozenset(
    {
        "quote",
        "quotes",
        "cells",
        "evidence",
        "source",
        "sources",
        "start",
        "end",
        "row",
        "column",
        "score",
        "confidence",
    }
)


@dataclass(frozen=True)
class Score:
    """A verdict and its reasons."""

    verdict: Verdict
    missing: tuple[str, ...] = ()
    """Expected facts that the answer does not state, by their first alternative."""
    stated: tuple[str, ...] = ()
    """Forbidden facts that the answer states."""


def score(request: Request, status: Status, text: str) -> Score:
    """Returns the verdict about an answer.

    Without an answer in the documents, a refusal or a text that says so is right, and any other text is wrong. With
    one, an answer is right if it states enough of the expected facts and no forbidden one. An error is never right.
    """
    content = read(text, request.language)
    empty = status != "done" or not text.strip()
    stated = tuple(one for one in request.forbidden if occurs(one, content, request.language, forbidden=True))
    if status == "failed":
        return Score("no answer")
    if not request.answerable:
        if empty:
            return Score("right")
        return Score("right" if gives_nothing(content) and not stated else "wrong", stated=stated)
    if empty:
        return Score("no answer")
    missing = tuple(
        fact[0] for fact in request.expected if not any(occurs(one, content, request.language) for one in fact)
    )
    enough = len(request.expected) - len(missing) >= request.at_least
    if enough and not stated:
        short = not request.longest or len(text.split()) <= request.longest
        return Score("right") if short else Score("wrong", ("at most so many words",))
    if not stated and finds_nothing(content):
        return Score("no answer", missing)
    return Score("wrong", missing, stated)


def answer_text(value: Any) -> str:
    """Returns the text of an answer that is a value: without field names, positions, confidence and evidence."""
    return "\n".join(_leaves(value))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        fields = [name for name in ANSWER_FIELDS if name in value]
        names = fields or [name for name in value if name not in NO_CONTENT and not str(name).startswith("p_")]
        for name in names:
            yield from _leaves(value[name])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value if isinstance(value, str) else json.dumps(value)
