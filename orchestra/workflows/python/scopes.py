"""Scopes: the nodes that a workflow function has described so far, their names, and what guards them.

A workflow function is run once with placeholders. While it runs, a context variable holds the innermost scope: that of the
workflow, of a `map_` body, or of a loop's turn. A node is a draft until the function has ended; then it is frozen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from types import CodeType
from typing import Any, TypeAlias

from pydantic import ValidationError

from orchestra.core.errors import InputError
from orchestra.schema.types import Schema, mapped
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import AnyNode, Node
from orchestra.workflows.python import bytecode, errors
from orchestra.workflows.python.bytecode import Bindings, blind_spots
from orchestra.workflows.python.errors import Spot
from orchestra.workflows.python.suggestions import Position, Tried, caught

ONCE = "the body of a workflow runs once, before any value is known"
RESERVED = KEYWORDS | {"input", "turn", "previous"}
"""Names that no node may have."""


@dataclass(eq=False)
class Variable:
    """A name that expressions may read: `input`, or the element of a `map_` body. `schema` is the type of what it stands for."""

    name: str
    schema: Schema


class Presence(IntEnum):
    """How surely a node has a value where its guards hold, failures and the clauses that it states apart."""

    OPEN = 0
    """It may be missing though nothing guards it: `first_of` without a sure last arm."""
    LOOSE = 1
    """It may be missing, as a call whose own card withholds answers."""
    ANSWERED = 2
    """It is there where no person declines to answer."""
    FIRM = 3


@dataclass(eq=False)
class Draft(Variable):
    """A node in the making. `schema` is the type of one value of it, also under `each`."""

    kind: type[Node]
    fields: dict[str, Any]
    """Of the frozen node."""
    named: bool
    """Whether it bears the name of the user's variable."""
    scope: Scope
    """The body that it stands in."""
    guards: tuple[Guard, ...]
    """All that guard it, outermost first: those of the scopes around it, then its own."""
    own: int = 0
    """How many of the last guards stand in its own scope."""
    used: bool = False
    spots: tuple[Spot, ...] = ()
    """Where it was written, and the calls of functions of the user's that led there, innermost first."""
    presence: Presence = Presence.FIRM
    """Of itself, as far as that is known here."""
    shown: Presence = Presence.OPEN
    """What has been shown of it and of all that it needs."""
    effect: str = "pure"
    """Of the tool that it calls."""
    inner: Sequence[Draft] = ()
    """The nodes of its body."""
    instead: str = ""
    """Of a `first_of` that a call with `fallback=lambda: ...` made: the node of the call."""

    @property
    def spot(self) -> Spot | None:
        """Where it was written."""
        return self.spots[0] if self.spots else None

    @property
    def type(self) -> Schema:
        """The type of the node as expressions see it."""
        return mapped(self.schema) if "each" in self.fields else self.schema

    def frozen(self) -> AnyNode:
        """The node. Raises `InputError` W016 for a clause that is not one."""
        fields = {key: value for key, value in self.fields.items() if value is not None and not (type(value) is tuple and not value)}
        if self.own:
            fields["when"] = f"${{{conjunction(self.guards[len(self.guards) - self.own :])}}}"
        try:
            return self.kind(**fields)  # type: ignore[return-value]  # the kinds are those of the union
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(step) for step in first["loc"])
            raise fault("W016", f"{self.name}: {where}: {first['msg']}", spot=self.spot) from error


@dataclass(eq=False, frozen=True)
class Guard:
    """A condition under which nodes run: CEL, and whether it must be bracketed inside `&&`."""

    cel: str
    rank: int
    reads: frozenset[Variable]


_SNAKE = re.compile(r"[a-z][a-z0-9_]{0,55}")


def _snake(wanted: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", wanted).lower()
    return re.sub(r"[^a-z0-9_]+", "_", snake).lstrip("_0123456789")[:56] or "node"


def conjunction(guards: tuple[Guard, ...]) -> str:
    """The CEL of all the guards together."""
    if len(guards) == 1:
        return guards[0].cel
    return " && ".join(guard.cel if guard.rank > 2 else f"({guard.cel})" for guard in guards)


@dataclass(eq=False)
class Scope:
    """One body: its nodes in the order in which they were written."""

    parent: Scope | None = None
    function: Callable[..., Any] | None = None
    """What describes it; of the outermost scope."""
    around: Scope | None = None
    """Of the outermost scope: the one in which the workflow was met that is read here."""
    home: str = ""
    """The file of the function that describes it."""
    nodes: list[Draft] = field(default_factory=list)
    drafts: dict[str, Draft] = field(default_factory=dict)
    """The same, by name."""
    names: set[str] = field(default_factory=set)
    below: Counter[str] = field(default_factory=Counter)
    """Names that bodies inside it have taken, and how often."""
    guards: tuple[Guard, ...] = ()
    failed: list[InputError] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    """What was called, in order; of the outermost scope."""
    models: dict[str, Schema] = field(default_factory=dict)
    """The models that its types name: those of the inputs, and of what plans return; of the outermost scope."""
    unknown: bool = False
    """Whether types are being found out: a loop's first trace, in which nothing is refused for its type."""
    ending: Spot | None = None
    """The `return` of its function, once that has returned: what it returns may be missing."""
    tried: dict[str, int] = field(default_factory=dict)
    """By a name that was wanted: the first number behind it that may be free here."""
    bindings: dict[int, Bindings] = field(default_factory=dict)
    """By the `id` of a code object that it holds; of the outermost scope."""
    tries: dict[str, list[Tried]] = field(default_factory=dict)
    """By file: what takes every exception in it; of the outermost scope."""

    def chain(self) -> Iterator[Scope]:
        """This scope and those around it, innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    @property
    def root(self) -> Scope:
        """The scope of the workflow."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    @property
    def standing(self) -> tuple[Guard, ...]:
        """All guards that hold here, outermost first."""
        if self.parent is None:
            return self.guards
        return tuple(guard for scope in reversed([*self.chain()]) for guard in scope.guards)

    def fresh(self, wanted: str) -> str:
        """A name that nothing around or inside has, made of the wanted one; it is taken from then on."""
        name = wanted if _SNAKE.fullmatch(wanted) else _snake(wanted)
        candidate, number = f"{name}_" if name in RESERVED else name, self.tried.get(name, 2)
        while self._taken(candidate):
            candidate, number = f"{name}_{number}", number + 1
        self.tried[name] = number
        self.take(candidate)
        return candidate

    def _taken(self, name: str) -> bool:
        return bool(self.below.get(name)) or any(name in scope.names for scope in self.chain())

    def take(self, name: str) -> None:
        """Marks a name as taken."""
        self.names.add(name)
        for scope in self.chain():
            if scope is not self:
                scope.below[name] += 1

    def free(self, name: str) -> None:
        """Gives a name back that nothing refers to."""
        self.names.discard(name)
        self.drafts.pop(name, None)
        wanted, _, number = name.rpartition("_")
        for scope in self.chain():
            if number.isdecimal() and wanted in scope.tried:
                scope.tried[wanted] = min(int(number), scope.tried[wanted])
            if scope is not self:
                scope.below[name] -= 1

    def add(self, kind: type[Node], default: str, schema: Schema, **fields: Any) -> Draft:
        """A new node, named after the variable that its value is bound to, or else by the default."""
        spots = errors.user_spots()
        spot = spots[0]
        if bindings(spot).catches and self._tried(spot):
            raise fault(
                "W030",
                "an `except` around this call never sees it fail",
                hint="...options(fallback=lambda: ...)(...), or retry=3",
                why=f"{ONCE}; the call is only described here, and runs later",
                spot=spot,
            )
        variable = target(spot)
        name = fields.pop("name", None) or variable or default
        draft = Draft(self.fresh(name), schema, kind, fields, bool(variable), self, self.standing, len(self.guards), spots=spots)
        self.nodes.append(draft)
        self.drafts[draft.name] = draft
        return draft

    def _tried(self, spot: Spot) -> bool:
        """Whether an `except` around the code there takes whatever is raised, and goes on."""
        file = spot.code.co_filename
        if (found := self.root.tries.get(file)) is None:
            found = self.root.tries[file] = errors.tried(spot)
        return any(caught(one, place(spot)) for one in found)

    def call(self, draft: Draft, wanted: str, *, named: bool) -> None:
        """Gives a node, which nothing refers to, another name."""
        self.free(draft.name)
        draft.name, draft.named = self.fresh(wanted), named
        self.drafts[draft.name] = draft

    def rename(self, draft: Draft) -> None:
        """Names a node after the variable of the present call, where it has no variable's name and nothing refers to it yet."""
        variable = target(errors.user_spot())
        if variable and not draft.named and not draft.used and draft.scope is self:
            self.call(draft, variable, named=True)


@dataclass(frozen=True, slots=True)
class Line:
    """Where a node was written, and where those in its body were."""

    spot: Spot | None
    inner: Lines


Lines: TypeAlias = Mapping[str, Line]
"""By the name of a node."""


def lines_of(drafts: Iterable[Draft]) -> dict[str, Line]:
    """Where nodes were written."""
    return {draft.name: Line(draft.spot, lines_of(draft.inner)) for draft in drafts}


_scope: ContextVar[Scope | None] = ContextVar("orchestra_scope", default=None)


def tracing() -> Scope | None:
    """The innermost scope, while a workflow function runs."""
    return _scope.get()


def current(what: str) -> Scope:
    """The innermost scope. Raises `InputError` W001 outside of a workflow."""
    scope = _scope.get()
    if scope is None:
        raise errors.mistake(
            "W001",
            f"{what} is called outside a workflow",
            hint="call it in a function under @workflow",
            why="it describes a part of a workflow; there is nothing to run yet",
        )
    return scope


@contextmanager
def inside(scope: Scope) -> Iterator[Scope]:
    """Makes a scope the innermost one."""
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def fault(code: str, message: str, *, hint: str = "", why: str = "", spot: Spot | None = None) -> InputError:
    """The error of a mistake, kept on the scopes too, so that an `except` in the body cannot hide it.

    A mistake in what the body returned is at its `return`, or at its `def` where it has several. Where code that is not the user's met
    a placeholder, the error is W014 at the user's own line.
    """
    scope = _scope.get()
    chain = [*scope.chain()] if scope is not None else []
    homes = {one.home for one in chain}
    if spot is None and scope is not None and (spot := scope.ending) is not None and spot.last < 0:
        why = why or "one of its returns gives this"
    spots = [spot] if spot is not None else errors.spots()
    own = next((one for one in spots if not one.foreign or one.code.co_filename in homes), spots[0])
    first = own is spots[0]
    error = errors.mistake(code, message, hint=hint, why=why, spot=own) if first else _foreign(own, message)
    for one in chain:
        one.failed.append(error)
    return error


def _foreign(spot: Spot, reason: str) -> InputError:
    if "validation error" in reason:
        hint = f"new({errors.called_at(spot) or 'Model'}, field=...) makes a model of values that are not known yet"
    else:
        hint = "do this step in a function under @tool(effect='pure'), and call that here"
    said = f"this line hands a value of the workflow to code that cannot wait for it: {reason}"
    return errors.mistake("W014", said, hint=hint, why=ONCE, spot=spot)


def target(spot: Spot) -> str | None:
    """`passages = search(...)`: the name that a call's result is bound to."""
    return bindings(spot).name(spot.last)


def bindings(spot: Spot) -> Bindings:
    """What a code object binds its calls to, read once for a workflow."""
    scope = tracing()
    known = scope.root.bindings if scope is not None else {}
    if (found := known.get(id(spot.code))) is None:
        found = known[id(spot.code)] = Bindings(spot.code)
    return found


def being_read(function: Callable[..., Any] | None) -> bool:
    """Whether a workflow's function is under way further out."""
    scope = tracing()
    while scope is not None and scope.root.function is not function:
        scope = scope.root.around
    return scope is not None


def effect(body: Scope) -> str:
    """The first effect of the nodes of a body; `pure` where none has one."""
    return next((node.effect for node in body.nodes if node.effect != "pure"), "pure")


def place(spot: Spot) -> Position:
    """The position of a spot: of a code object that makes many calls it is looked up, and not read again."""
    return errors.placed(spot.code, bindings(spot).positions[spot.last // 2])


def traced(function: Callable[..., Any], *args: Any, **inputs: Any) -> Any:
    """What a function gives for placeholders.

    Raises `InputError` W013 for code that would look past them, W014 for code that cannot take them.
    """
    code: CodeType | None = getattr(function, "__code__", None)
    if code is not None and (blind := next(blind_spots(code), None)) is not None:
        raise _looked_past(*blind)
    try:
        return function(*args, **inputs)
    except (TypeError, ValueError) as error:
        if "Placeholder" not in (said := repr(error)) and "Guarded" not in said:
            raise
        raise _met(error) from error


def _looked_past(code: CodeType, last: int, word: str) -> InputError:
    spot = Spot(code, last)
    usual = "present(x)" if word == "is" else "first_of(when(length(x) == 1, lambda: ...), otherwise=...)"
    return fault(
        "W013",
        f"`{word}` looks past a placeholder, so it would be decided now",
        hint=errors.instead(spot) or usual,
        why=f"{ONCE}; a choice that is settled before that belongs outside of the body",
        spot=spot,
    )


def _met(error: Exception) -> InputError:
    """The error of code that cannot take a placeholder, at the innermost line of the user's that called it."""
    scope = current("a workflow's body")
    last = errors.passed(error, {one.home for one in scope.chain()})
    reason = str(error).replace("Placeholder", "placeholder").splitlines()
    said = f"{type(error).__name__}: {reason[0] if reason else ''}"
    made = _foreign(last or errors.user_spot(), said)
    for one in scope.chain():
        one.failed.append(made)
    return made


def returning(function: Callable[..., Any]) -> Spot:
    """The `return` of a function; its `def` where it has several, for which of them it was nobody knows any more."""
    return Spot(function.__code__, bytecode.only_return(function.__code__))
