"""The questions of ParallelQA with their recorded steps: the required facts, frozen as passages, and the computation.

Steps and facts are in `bench/parallel.yaml`. All arms of `bench.parallel` generate the same actions, read the same
passages and compute the same terms.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bench.machine import ROOT
from orchestra.agents.evidence_grammar import grammar_literal
from orchestra.agents.registry import Registry
from orchestra.core.events import NO_USAGE, Usage
from orchestra.schema.builtin_models import Reading
from orchestra.schema.strict_yaml import load_yaml
from orchestra.text.arithmetic import ArithmeticParseError, evaluate
from orchestra.workflows.python.steps import Agent, agent, tool, workflow

MOST_FACTS = 8
RECORDED = ROOT / "bench" / "parallel.yaml"
_FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")
_STEP = re.compile(r"\bs(\d+)\b")
_CHOICE = re.compile(r"(largest|smallest)\((.*)\)")


@dataclass(frozen=True)
class Fact:
    """A fact to look up: its subject, its property, and the passage with it."""

    of: str
    what: str
    passage: str

    @property
    def question(self) -> str:
        """Returns the question for the reader."""
        return f"What is the {self.what} of {self.of}?"

    @property
    def action(self) -> str:
        """Returns the action as both arms generate it."""
        return f'lookup("{self.what} of {self.of}")'


@dataclass(frozen=True)
class Question:
    """A question, its answer, and its steps."""

    id: str
    text: str
    answer: str
    facts: tuple[Fact, ...]
    term: str

    @property
    def computation(self) -> str:
        """Returns the last action as both arms generate it."""
        return f'compute("{self.term}")'

    @property
    def alike(self) -> list[tuple[str, list[str]]]:
        """Returns the facts grouped by adjacent ones with the same property: property and subjects."""
        return [(what, [fact.of for fact in facts]) for what, facts in groupby(self.facts, key=lambda fact: fact.what)]


@dataclass
class Trace:
    """One question in one arm. Seconds since its start."""

    answer: str | None = None
    seconds: float = 0.0
    first: float = 0.0
    """Time of the first look-up."""
    planning: Usage = NO_USAGE
    reading: Usage = NO_USAGE
    written: list[str] = field(default_factory=list)
    """The planner's texts, call by call."""
    fault: str = ""
    began: float = field(default_factory=time.perf_counter)

    def looks_up(self) -> None:
        """Records the start of a look-up."""
        self.first = self.first or time.perf_counter() - self.began


def exactly(text: str, *, goes_on: bool) -> str:
    """Returns the grammar of one text, preceded by a line break if text precedes it."""
    return f"%llguidance {{}}\nstart: {grammar_literal(chr(10) * goes_on + text)}\n"


@tool(effect="pure", version="1")
def compute(
    term: str,
    names: list[str],
    r1: str | None = None,
    r2: str | None = None,
    r3: str | None = None,
    r4: str | None = None,
    r5: str | None = None,
    r6: str | None = None,
    r7: str | None = None,
    r8: str | None = None,
) -> str | None:
    """Returns the value of a term over the readings by name; null if a reading is null."""
    return computed(term, (r1, r2, r3, r4, r5, r6, r7, r8)[: len(names)], names)


class Found(BaseModel):
    """The result of a look-up."""

    of: str
    answer: str | None


class Page(BaseModel):
    """A passage with a fact, and the question for a reader."""

    question: str
    passage: str


class ReaderInput(BaseModel):
    """The reader's input."""

    question: str
    context: str


@tool(effect="pure", version="1")
def page(what: str, of: str) -> Page:
    """Returns the frozen passage of a fact."""
    (fact,) = _facts(f"{what}: {of}", recorded()["facts"])
    return Page(question=fact.question, passage=fact.passage)


@tool(effect="pure", version="1")
def found(of: str, answer: str | None) -> Found:
    """Returns the found value with its subject."""
    return Found(of=of, answer=answer)


reader = agent("reader", ReaderInput, Reading)


def one_model(registry: Registry) -> Agent[..., Any]:
    """The reader of all arms: one model, by the name in the recorded steps. The benchmark compares the timing of calls
    and not the answers.
    """
    return Agent.from_card(registry.card("generative_reader").with_settings(name="reader"))


@workflow()
def lookup(what: str, of: str) -> Found:
    """Finds a fact, such as the length of a river."""
    told = page(what=what, of=of)
    reading = reader(question=told.question, context=told.passage)
    return found(of=of, answer=reading.answer)


@tool(effect="pure", version="1")
def reckon(term: str, facts: list[Found], more: list[Found] | None = None) -> str | None:
    """Returns the value of a term over facts; null if one was not found."""
    known = [*facts, *(more or ())]
    return computed(term, [one.answer for one in known], [one.of for one in known])


@lru_cache(maxsize=1)
def recorded() -> Mapping[str, Any]:
    """Returns the recorded steps and facts."""
    said: Mapping[str, Any] = load_yaml(RECORDED.read_bytes(), str(RECORDED)).value
    return said


def questions(rows: Path) -> list[Question]:
    """Returns the questions of a file with recorded steps, in order. Raises KeyError if a fact is missing."""
    said = recorded()
    found = []
    for line in rows.read_text("utf-8").splitlines():
        row = json.loads(line)
        steps = said["steps"].get(row["id"].removeprefix("parallelqa-"))
        if steps is not None:
            facts = tuple(fact for part in steps["facts"].split("|") for fact in _facts(part, said["facts"]))
            found.append(
                Question(row["id"], row["input"]["question"], row["expected"]["answer"], facts, steps["compute"])
            )
    return found


def _facts(part: str, known: Mapping[str, Any]) -> list[Fact]:
    """Returns the facts of `what: one; another`. A passage has the requested fact and the next one."""
    what, _, names = part.strip().partition(": ")
    table, unit = known[what]["of"], known[what]["unit"]
    order = list(table)
    found = []
    for name in names.split("; "):
        other = order[(order.index(name) + 1) % len(order)]
        told = " ".join(f"{one[0].upper()}{one[1:]} has a {what} of {table[one]} {unit}." for one in (name, other))
        found.append(Fact(name, what, told))
    return found


def computed(term: str, readings: Sequence[str | None], names: Sequence[str]) -> str | None:
    """Returns the value of a term over readings: a number, or the name that `largest` or `smallest` select; None if a
    reading is null.

    Every `s1` is the first figure of the first reading.
    """
    figures = [_FIGURE.search(reading or "") for reading in readings]
    if not all(figures):
        return None
    values = [found[0].replace(",", "") for found in figures if found]
    try:
        if choice := _CHOICE.fullmatch(term):
            terms = [float(evaluate(_filled(one, values))) for one in choice[2].split(", ")]
            return names[terms.index((max if choice[1] == "largest" else min)(terms))]
        return f"{float(evaluate(_filled(term, values))):.10g}"
    except (ArithmeticParseError, ZeroDivisionError, IndexError):
        return None


def _filled(term: str, values: Sequence[str]) -> str:
    return _STEP.sub(lambda found: values[int(found[1]) - 1], term)
