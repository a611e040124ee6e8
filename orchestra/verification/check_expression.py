"""Check expressions: `quote & numbers | entailment(judge)`. An expression is parsed, printed and evaluated, and never
executed.

    expression = all_of {"|" all_of}       one of them passes
    all_of     = check {"&" check}         all of them pass
    check      = NAME ["(" NAME | INTEGER ")"] | "(" expression ")"

An argument is the name of an agent or a tool. Names of MCP tools contain dots and hyphens.

Verdicts are combined in Kleene's strong three-valued logic of `pass`, `fail` and `unknown` (S. C. Kleene, *Introduction
to Metamathematics*, 1952, §64): `|` passes if one part passes, and fails if all fail; `&` fails if one part fails, and
passes if all pass.
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
"""Check of agreement between samples. It may settle what the evidence leaves open, but not overrule evidence against a
value.
"""
MAX_LENGTH = 1024
"""Maximum length of an expression in characters; the same as of workflow expressions."""
MAX_DEPTH = 12
"""Maximum depth of nested brackets."""


class CheckCall(msgspec.Struct, frozen=True):
    """One check with its argument: the name of a judge, or a number."""

    check: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.check}({self.argument})" if self.argument else self.check


class AllOf(msgspec.Struct, frozen=True):
    """Passes if all parts pass."""

    parts: tuple[CheckExpression, ...]

    def __str__(self) -> str:
        return " & ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)


class AnyOf(msgspec.Struct, frozen=True):
    """Passes if one part passes."""

    parts: tuple[CheckExpression, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.parts))


CheckExpression: TypeAlias = CheckCall | AllOf | AnyOf


class CheckSyntaxError(ValueError):
    """A syntax error, with the reason and the position in characters from 0."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason, self.position = reason, position


_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*(?:[.-]\w+)*)|(?P<number>\d{1,6})|(?P<mark>[()|&]))")

_CHECK_NAME = re.compile(r"[a-z][a-z0-9_]*")


@lru_cache(maxsize=1024)
def parse_check(text: str) -> CheckExpression:
    """Parses an expression. Raises `CheckSyntaxError`."""
    if len(text) > MAX_LENGTH:
        raise CheckSyntaxError(f"it has more than {MAX_LENGTH} characters", MAX_LENGTH)
    tokens: list[tuple[str, str, int]] = []
    at = 0
    while text[at:].strip():
        if (match := _TOKEN.match(text, at)) is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise CheckSyntaxError(f"{text[at]!r} is unexpected in a check", at)
        kind = match.lastgroup or ""
        tokens.append((kind, match[kind], match.start(kind)))
        at = match.end()
    reader = _Parser(tokens, len(text))
    found = reader.any_of(0)
    if reader.kind:
        raise CheckSyntaxError(f"{reader.text!r} is unexpected after a complete check", reader.position)
    return found


class _Parser:
    """Recursive-descent parser over tokens."""  # prose: ok

    def __init__(self, tokens: list[tuple[str, str, int]], end: int) -> None:
        self._tokens, self._end, self._next = tokens, end, 0

    @property
    def kind(self) -> str:
        """Kind of the next token: `name`, `number` or `mark`; empty at the end."""
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    @property
    def text(self) -> str:
        return self._tokens[self._next][1] if self.kind else "the end"

    @property
    def position(self) -> int:
        return self._tokens[self._next][2] if self.kind else self._end

    def _take(self, mark: str) -> bool:
        if self.kind == "mark" and self.text == mark:
            self._next += 1
            return True
        return False

    def any_of(self, depth: int) -> CheckExpression:
        """Parses parts between `|`."""
        parts = [self._all_of(depth)]
        while self._take("|"):
            parts.append(self._all_of(depth))
        return flatten(AnyOf, parts)

    def _all_of(self, depth: int) -> CheckExpression:
        parts = [self._check(depth)]
        while self._take("&"):
            parts.append(self._check(depth))
        return flatten(AllOf, parts)

    def _check(self, depth: int) -> CheckExpression:
        if self._take("("):
            if depth >= MAX_DEPTH:
                raise CheckSyntaxError(f"more than {MAX_DEPTH} nested brackets", self.position)
            found = self.any_of(depth + 1)
            self._expect_close()
            return found
        if self.kind != "name":
            raise CheckSyntaxError(
                f"expected a check, not {self.text!r}" if self.kind else "expected a check at the end", self.position
            )
        name = self.text
        if not _CHECK_NAME.fullmatch(name):
            raise CheckSyntaxError(f"{name!r} is not a check name", self.position)
        self._next += 1
        if not self._take("("):
            return CheckCall(name)
        if self.kind not in ("name", "number"):
            raise CheckSyntaxError(f"{name}() takes the name of an agent, or a number", self.position)
        argument = self.text
        self._next += 1
        self._expect_close()
        return CheckCall(name, argument)

    def _expect_close(self) -> None:
        if not self._take(")"):
            raise CheckSyntaxError(
                "a bracket is not closed" if not self.kind else f"expected `)`, not {self.text!r}", self.position
            )


def flatten(kind: type[AllOf] | type[AnyOf], parts: list[CheckExpression]) -> CheckExpression:
    """Builds one expression from parts: flattens parts of the same kind and removes duplicates."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, kind) else (part,))]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else kind(unique)


def check_calls(rule: CheckExpression) -> Iterator[CheckCall]:
    """Checks of an expression, in order."""
    if isinstance(rule, CheckCall):
        yield rule
        return
    for part in rule.parts:
        yield from check_calls(part)


def evaluate(rule: CheckExpression, known: Mapping[CheckCall, Verdict], *, expensive: bool = False) -> Verdict | None:
    """Evaluates an expression from the verdicts of its checks so far.

    Args:
        expensive: Whether the open checks cost a call. Then an `&` that can no longer pass is `unknown` at once,
        although a further
            check could make it a `fail`.

    Returns:
        The verdict, or None if open checks could change it.
    """
    match rule:
        case CheckCall():
            return known.get(rule)
        case AllOf(parts):
            return _evaluate_all(
                rule, [evaluate(part, known, expensive=expensive) for part in parts], expensive=expensive
            )
        case AnyOf(parts):
            return _evaluate_any(rule, [evaluate(part, known, expensive=expensive) for part in parts])


def open_checks(
    rule: CheckExpression, known: Mapping[CheckCall, Verdict], *, expensive: bool = False
) -> Iterator[CheckCall]:
    """Open checks that can still affect the verdict, in order."""
    if evaluate(rule, known, expensive=expensive) is not None:
        return
    if isinstance(rule, CheckCall):
        yield rule
        return
    for part in rule.parts:
        yield from open_checks(part, known, expensive=expensive)


def _evaluate_all(rule: AllOf, verdicts: list[Verdict | None], *, expensive: bool) -> Verdict | None:
    have = tuple(one for one in verdicts if one is not None)
    against = [one for one in have if one.outcome == FAIL] or [one for one in have if one.outcome == UNKNOWN]
    closed = len(have) == len(verdicts) or any(one.outcome == FAIL for one in against) or (expensive and bool(against))
    if not closed:
        return None
    if not against:
        return _compose(rule, PASS, min(one.score for one in have), have, have)
    score = 0.0 if against[0].outcome == FAIL else min(one.score for one in against)
    return _compose(rule, against[0].outcome, score, against, have)


def _evaluate_any(rule: AnyOf, verdicts: list[Verdict | None]) -> Verdict | None:
    have = tuple(one for one in verdicts if one is not None)
    good = [one for one in have if one.outcome == PASS]
    if good:
        best = max(good, key=lambda one: one.score)
        return _compose(rule, PASS, best.score, [best], have)
    # Agreement is not correctness (VERIFICATION, V3), so it does not overrule a denial by all the evidence.
    others = [one for part, one in zip(rule.parts, verdicts, strict=True) if not is_agreement_only(part)]
    denied = bool(others) and all(one is not None and one.outcome == FAIL for one in others)
    if len(have) < len(verdicts) and not denied:
        return None
    open_ = [one for one in have if one.outcome == UNKNOWN]
    if open_ and not denied:
        return _compose(rule, UNKNOWN, max(one.score for one in open_), open_, have)
    return _compose(rule, FAIL, 0.0, [one for one in have if one.outcome == FAIL], have)


def is_agreement_only(rule: CheckExpression) -> bool:
    """Whether an expression consists of agreement checks only."""
    return all(one.check == AGREE for one in check_calls(rule))


def _compose(
    rule: CheckExpression,
    outcome: str,
    score: float,
    because: list[Verdict] | tuple[Verdict, ...],
    parts: tuple[Verdict, ...],
) -> Verdict:
    reasons = [f"{one.check}: {one.reason or one.outcome}" for one in because] if outcome != PASS else []
    return Verdict(
        str(rule),
        outcome,
        score,
        "; ".join(reasons),
        deterministic=all(one.deterministic for one in because),
        evidence=tuple(evidence for one in parts if one.outcome == PASS for evidence in one.evidence)
        if outcome == PASS
        else (),
        parts=parts,
    )
