"""Rules: checks put together. `quote & numbers | entailment(judge)` is a value, read from text, written back, and never executed.

    rule   = part  {"|" part}          one of them passes
    part   = check {"&" check}         all of them pass
    check  = NAME ["(" NAME | INTEGER ")"] | "(" rule ")"

Names are those of agents and tools; of tools of MCP servers they have dots and strokes in them.

What the parts say is joined in Kleene's strong logic of three values, `pass`, `fail` and `unknown` (S. C. Kleene, *Introduction to
Metamathematics*, 1952, §64): `|` passes where one passes, and fails where all fail; `&` fails where one fails, and passes where all pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TypeAlias

import msgspec

from orchestra.core.events import Verdict
from orchestra.verification.verdict import FAIL, PASS, UNKNOWN

AGREE = "agree"
"""The check that may settle what evidence leaves open, and never what evidence denies."""
MAX_TEXT = 1024
"""Characters of a rule at most; as many as of an expression."""
MAX_DEPTH = 12
"""Brackets inside each other, at most."""


class Named(msgspec.Struct, frozen=True):
    """One check, with what it is told: the agent that is asked, or a number."""

    check: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.check}({self.argument})" if self.argument else self.check


class Every(msgspec.Struct, frozen=True):
    """Passes where all of its parts pass."""

    parts: tuple[Rule, ...]

    def __str__(self) -> str:
        return " & ".join(f"({part})" if isinstance(part, Some) else str(part) for part in self.parts)


class Some(msgspec.Struct, frozen=True):
    """Passes where one of its parts passes."""

    parts: tuple[Rule, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.parts))


Rule: TypeAlias = Named | Every | Some


class NotARule(ValueError):
    """A text that is no rule: why, and at which of its characters, from 0."""

    def __init__(self, why: str, at: int) -> None:
        super().__init__(why)
        self.why, self.at = why, at


_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*(?:[.-]\w+)*)|(?P<number>\d{1,6})|(?P<mark>[()|&]))")

_CHECK = re.compile(r"[a-z][a-z0-9_]*")


@lru_cache(maxsize=1024)
def read(text: str) -> Rule:
    """The rule of a text. Raises `NotARule`."""
    if len(text) > MAX_TEXT:
        raise NotARule(f"it has more than {MAX_TEXT} characters", MAX_TEXT)
    tokens: list[tuple[str, str, int]] = []
    at = 0
    while text[at:].strip():
        if (match := _TOKEN.match(text, at)) is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise NotARule(f"{text[at]!r} stands in no check", at)
        kind = match.lastgroup or ""
        tokens.append((kind, match[kind], match.start(kind)))
        at = match.end()
    reader = _Reader(tokens, len(text))
    found = reader.some(0)
    if reader.kind:
        raise NotARule(f"{reader.text!r} follows a check that is whole", reader.at)
    return found


class _Reader:
    """Goes through tokens once, by recursive descent."""

    def __init__(self, tokens: list[tuple[str, str, int]], end: int) -> None:
        self._tokens, self._end, self._next = tokens, end, 0

    @property
    def kind(self) -> str:
        """What comes: `name`, `number` or `mark`; empty at the end."""
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    @property
    def text(self) -> str:
        return self._tokens[self._next][1] if self.kind else "the end"

    @property
    def at(self) -> int:
        return self._tokens[self._next][2] if self.kind else self._end

    def _take(self, mark: str) -> bool:
        if self.kind == "mark" and self.text == mark:
            self._next += 1
            return True
        return False

    def some(self, depth: int) -> Rule:
        """Parts between `|`."""
        parts = [self._every(depth)]
        while self._take("|"):
            parts.append(self._every(depth))
        return joined(Some, parts)

    def _every(self, depth: int) -> Rule:
        parts = [self._check(depth)]
        while self._take("&"):
            parts.append(self._check(depth))
        return joined(Every, parts)

    def _check(self, depth: int) -> Rule:
        if self._take("("):
            if depth >= MAX_DEPTH:
                raise NotARule(f"more than {MAX_DEPTH} brackets inside each other", self.at)
            found = self.some(depth + 1)
            self._close()
            return found
        if self.kind != "name":
            raise NotARule(f"a check is wanted, not {self.text!r}" if self.kind else "a check is wanted at its end", self.at)
        name = self.text
        if not _CHECK.fullmatch(name):
            raise NotARule(f"{name!r} is no name of a check", self.at)
        self._next += 1
        if not self._take("("):
            return Named(name)
        if self.kind not in ("name", "number"):
            raise NotARule(f"{name}() wants the name of an agent, or a number", self.at)
        argument = self.text
        self._next += 1
        self._close()
        return Named(name, argument)

    def _close(self) -> None:
        if not self._take(")"):
            raise NotARule("a bracket is not closed" if not self.kind else f"`)` is wanted, not {self.text!r}", self.at)


def joined(kind: type[Every] | type[Some], parts: list[Rule]) -> Rule:
    """The parts as one rule: those of the same kind opened, each once, in their order."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, kind) else (part,))]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else kind(unique)


def named(rule: Rule) -> Iterator[Named]:
    """The checks of a rule, in their order."""
    if isinstance(rule, Named):
        yield rule
        return
    for part in rule.parts:
        yield from named(part)


def verdict(rule: Rule, known: Mapping[Named, Verdict], *, dear: bool = False) -> Verdict | None:
    """The verdict of a rule, given those of its checks so far; None if checks that are still open could change it.

    Set `dear` when the open checks cost a call: an `&` that can no longer pass is then settled at once as `unknown`, though a further check
    might have turned it into a `fail`.
    """
    match rule:
        case Named():
            return known.get(rule)
        case Every(parts):
            return _every(rule, [verdict(part, known, dear=dear) for part in parts], dear=dear)
        case Some(parts):
            return _some(rule, [verdict(part, known, dear=dear) for part in parts])


def wanted(rule: Rule, known: Mapping[Named, Verdict], *, dear: bool = False) -> Iterator[Named]:
    """The checks that are open and may still make a difference, in their order."""
    if verdict(rule, known, dear=dear) is not None:
        return
    if isinstance(rule, Named):
        yield rule
        return
    for part in rule.parts:
        yield from wanted(part, known, dear=dear)


def _every(rule: Every, said: list[Verdict | None], *, dear: bool) -> Verdict | None:
    have = tuple(one for one in said if one is not None)
    against = [one for one in have if one.outcome == FAIL] or [one for one in have if one.outcome == UNKNOWN]
    closed = len(have) == len(said) or any(one.outcome == FAIL for one in against) or (dear and bool(against))
    if not closed:
        return None
    if not against:
        return _composed(rule, PASS, min(one.score for one in have), have, have)
    score = 0.0 if against[0].outcome == FAIL else min(one.score for one in against)
    return _composed(rule, against[0].outcome, score, against, have)


def _some(rule: Some, said: list[Verdict | None]) -> Verdict | None:
    have = tuple(one for one in said if one is not None)
    good = [one for one in have if one.outcome == PASS]
    if good:
        best = max(good, key=lambda one: one.score)
        return _composed(rule, PASS, best.score, [best], have)
    # Agreement is not correctness (VERIFICATION, V3): it is not asked to overrule what all the evidence denies.
    others = [one for part, one in zip(rule.parts, said, strict=True) if not only_agrees(part)]
    denied = bool(others) and all(one is not None and one.outcome == FAIL for one in others)
    if len(have) < len(said) and not denied:
        return None
    open_ = [one for one in have if one.outcome == UNKNOWN]
    if open_ and not denied:
        return _composed(rule, UNKNOWN, max(one.score for one in open_), open_, have)
    return _composed(rule, FAIL, 0.0, [one for one in have if one.outcome == FAIL], have)


def only_agrees(rule: Rule) -> bool:
    """Whether a rule rests on agreement alone."""
    return all(one.check == AGREE for one in named(rule))


def _composed(rule: Rule, outcome: str, score: float, because: list[Verdict] | tuple[Verdict, ...], parts: tuple[Verdict, ...]) -> Verdict:
    reasons = [f"{one.check}: {one.reason or one.outcome}" for one in because] if outcome != PASS else []
    return Verdict(
        str(rule),
        outcome,
        score,
        "; ".join(reasons),
        deterministic=all(one.deterministic for one in because),
        evidence=tuple(evidence for one in parts if one.outcome == PASS for evidence in one.evidence) if outcome == PASS else (),
        parts=parts,
    )
