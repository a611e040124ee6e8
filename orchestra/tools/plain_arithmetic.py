"""Plain arithmetic: a request that states all numbers of a computation, without a model.

The forms are a percentage of a number, an expression with operators, and a chain of rates such as `7.5 hours a day,
5 days a week, 46 weeks`. Word problems of other forms are left to the calculators.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from typing import Final

from orchestra.text import arithmetic
from orchestra.text.arithmetic import format_fraction
from orchestra.tools.replies import Finding, Reply
from orchestra.workflows.python.steps import tool

_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_LEAD = re.compile(
    r"^\W*(?:please\s+)?(?:(?:what(?:'s| is| are)|how much (?:is|are|does|do)|calculate|compute|work out|"
    r"tell me|was ist|wie viel ist)\s*:?\s+)?"
    r"(?P<rest>.+?)\s*(?:make|equal|come to)?\s*[?=.]*\s*$",
    re.IGNORECASE | re.DOTALL,
)
_PERCENT_OF = re.compile(
    rf"(?P<percent>{_NUMBER})\s?(?:%|per ?cent|prozent)\s+(?:of|von)\s+[$€£]?(?P<base>{_NUMBER})", re.IGNORECASE
)
_OPERATORS: Final = (
    ("×", "*"),
    ("·", "*"),
    ("÷", "/"),
    ("−", "-"),
    (" times ", " * "),
    (" plus ", " + "),
    (" minus ", " - "),
)
_LINK = re.compile(
    rf"(?P<number>{_NUMBER})\s+(?P<unit>[^\W\d_]+)(?:\s+(?:a|an|per|each|every|/)\s+(?P<per>[^\W\d_]+))?", re.IGNORECASE
)


def plain_expression(request: str) -> str | None:
    """The expression that a request states; None for a request of another form."""
    match = _LEAD.match(request)
    rest = match["rest"] if match else request
    if percent := _PERCENT_OF.fullmatch(rest):
        return f"{_figure(percent['base'])} * {_figure(percent['percent'])} / 100"
    text = f" {rest} "
    for sign, operator in _OPERATORS:
        text = text.replace(sign, operator)
    text = re.sub(r"(?<=\d)\s*[xX]\s*(?=\d)", " * ", text)
    if re.fullmatch(rf"[\s(]*{_NUMBER}(?:[\s()]*[-+*/][\s()]*{_NUMBER})+[\s)]*", text):
        return " ".join(_ungroup(text).split())
    return _chain(rest)


def _figure(text: str) -> str:
    return text.replace(",", "")


def _ungroup(text: str) -> str:
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)


def _chain(text: str) -> str | None:
    """A chain of rates: the unit of each is what the one before it is per; the last one is a quantity."""
    links = list(_LINK.finditer(text))
    if len(links) < 2 or not all(link["per"] for link in links[:-1]) or links[-1]["per"]:
        return None
    fits = all(_unit(one["per"]) == _unit(other["unit"]) for one, other in pairwise(links))
    return " * ".join(_figure(link["number"]) for link in links) if fits else None


def _unit(word: str) -> str:
    return word.casefold().removesuffix("s")


@tool(effect="pure", label="restricted")
def calculate(question: str) -> Reply:
    """Computes a request that states all of its numbers: a percentage, an expression, or a chain of rates."""
    expression = plain_expression(question)
    if expression is None:
        return Reply(text=None, missing=[question])
    try:
        value = arithmetic.evaluate(expression)
    except arithmetic.ArithmeticParseError:
        return Reply(text=None, missing=[question])
    shown = format_fraction(value if value.denominator < 10**6 else Fraction(round(value * 10**6), 10**6))
    return Reply(
        text=f"{shown}.",
        findings=[Finding(question=question, answer=shown)],
        computation=f"{expression} = {shown}",
    )
