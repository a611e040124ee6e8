"""Scopes: the nodes that a workflow function has added so far, their names, and their guards.

A workflow function is run once with placeholders. Meanwhile a context variable holds the innermost scope: that of the
workflow, of a `map_` body, or of a loop's turn. Nodes are mutable until the function ends; then they are frozen.
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
from orchestra.schema.types import Schema, map_result_type
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import AnyNode, Node
from orchestra.workflows.python import bytecode, errors
from orchestra.workflows.python.bytecode import CallBindings, unsupported_tests
from orchestra.workflows.python.errors import CodeLocation
from orchestra.workflows.python.suggestions import Position, TryBlock, is_caught

TRACED_ONCE_REASON = "the body of a workflow runs once, before any value is known"
RESERVED_NAMES = KEYWORDS | {"input", "turn", "previous"}
"""Names that no node may have."""


@dataclass(eq=False)
class Variable:
    """A name that expressions may read: `input`, or the element of a `map_` body. `schema` is the type of its value."""

    name: str
    schema: Schema


class NodePresence(IntEnum):
    """How certainly a node has a value under its guards, apart from failures and the node's own options."""

    OPTIONAL = 0
    """It may be missing without a guard: `first_of` without a certain last arm."""
    UNCERTAIN = 1
    """It may be missing, such as a call whose card withholds answers."""
    IF_ANSWERED = 2
    """It exists unless a person declines to answer."""
    ALWAYS = 3


@dataclass(eq=False)
class TracedNode(Variable):
    """A node during tracing. `schema` is the type of one value of it, also under `each`."""

    kind: type[Node]
    fields: dict[str, Any]
    """The fields of the frozen node."""
    has_variable_name: bool
    """Whether its name is that of the user's variable."""
    scope: TraceScope
    """The body that contains it."""
    guards: tuple[NodeGuard, ...]
    """All of its guards, outermost first: those of the enclosing scopes, then its own."""
    own_guard_count: int = 0
    """How many of the last guards belong to its own scope."""
    is_used: bool = False
    locations: tuple[CodeLocation, ...] = ()
    """Its location, and the calls of user functions that led to it, innermost first."""
    presence: NodePresence = NodePresence.ALWAYS
    """The certainty of its own value, as far as it is known here."""
    proven_presence: NodePresence = NodePresence.OPTIONAL
    """The proven certainty of its value and of all values it needs."""
    effect: str = "pure"
    """The effect of the tool that it calls."""
    body_nodes: Sequence[TracedNode] = ()
    """The nodes of its body."""
    fallback_for: str = ""
    """For a `first_of` made by `fallback=lambda: ...`: the node of the call."""

    @property
    def location(self) -> CodeLocation | None:
        """The location of its call."""
        return self.locations[0] if self.locations else None

    @property
    def type(self) -> Schema:
        """The type of the node in expressions."""
        return map_result_type(self.schema) if "each" in self.fields else self.schema

    def freeze(self) -> AnyNode:
        """Returns the frozen node. Raises `InputError` W016 for an invalid option."""
        fields = {
            key: value
            for key, value in self.fields.items()
            if value is not None and not (type(value) is tuple and not value)
        }
        if self.own_guard_count:
            fields["when"] = f"${{{conjunction(self.guards[len(self.guards) - self.own_guard_count :])}}}"
        try:
            return self.kind(**fields)  # type: ignore[return-value]  # the kinds are those of the union
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = ".".join(str(step) for step in first["loc"])
            raise trace_error("W016", f"{self.name}: {path}: {first['msg']}", location=self.location) from error


@dataclass(eq=False, frozen=True)
class NodeGuard:
    """A condition under which nodes run, as CEL with its precedence."""

    cel: str
    precedence: int
    reads: frozenset[Variable]


_SNAKE = re.compile(r"[a-z][a-z0-9_]{0,55}")


def _to_snake_case(text: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()
    return re.sub(r"[^a-z0-9_]+", "_", snake).lstrip("_0123456789")[:56] or "node"


def conjunction(guards: tuple[NodeGuard, ...]) -> str:
    """Returns the conjunction of the guards as CEL."""
    if len(guards) == 1:
        return guards[0].cel
    return " && ".join(guard.cel if guard.precedence > 2 else f"({guard.cel})" for guard in guards)


@dataclass(eq=False)
class TraceScope:
    """One body, with its nodes in the order of their calls."""

    parent: TraceScope | None = None
    function: Callable[..., Any] | None = None
    """The traced function; only in the outermost scope."""
    outer_trace: TraceScope | None = None
    """In the outermost scope: the scope in which this workflow was called."""
    file: str = ""
    """The file of the traced function."""
    nodes: list[TracedNode] = field(default_factory=list)
    nodes_by_name: dict[str, TracedNode] = field(default_factory=dict)
    """The nodes by name."""
    names: set[str] = field(default_factory=set)
    inner_names: Counter[str] = field(default_factory=Counter)
    """Names used by inner bodies, with counts."""
    guards: tuple[NodeGuard, ...] = ()
    errors: list[InputError] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    """The called steps in order; only in the outermost scope."""
    models: dict[str, Schema] = field(default_factory=dict)
    """The models named in types, of the inputs and of plans' results; only in the outermost scope."""
    is_type_discovery: bool = False
    """Whether this is the first trace of a loop, which only infers types and refuses none."""
    return_location: CodeLocation | None = None
    """The `return` of its function after it has returned, since returned values may be missing."""
    next_numbers: dict[str, int] = field(default_factory=dict)
    """By wanted name, the next number that may be free here."""
    call_bindings: dict[int, CallBindings] = field(default_factory=dict)
    """The names that calls are bound to, by the `id` of the code object; only in the outermost scope."""
    try_blocks: dict[str, list[TryBlock]] = field(default_factory=dict)
    """By file, the blocks that catch every exception; only in the outermost scope."""

    def chain(self) -> Iterator[TraceScope]:
        """Yields this scope and the enclosing ones, innermost first."""
        scope: TraceScope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    @property
    def root(self) -> TraceScope:
        """The scope of the workflow."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    @property
    def active_guards(self) -> tuple[NodeGuard, ...]:
        """All guards that hold here, outermost first."""
        if self.parent is None:
            return self.guards
        return tuple(guard for scope in reversed([*self.chain()]) for guard in scope.guards)

    def new_name(self, wanted: str) -> str:
        """Returns an unused name made from the wanted one, and reserves it."""
        name = wanted if _SNAKE.fullmatch(wanted) else _to_snake_case(wanted)
        candidate, number = f"{name}_" if name in RESERVED_NAMES else name, self.next_numbers.get(name, 2)
        while self._is_taken(candidate):
            candidate, number = f"{name}_{number}", number + 1
        self.next_numbers[name] = number
        self.take_name(candidate)
        return candidate

    def _is_taken(self, name: str) -> bool:
        return bool(self.inner_names.get(name)) or any(name in scope.names for scope in self.chain())

    def take_name(self, name: str) -> None:
        """Reserves a name."""
        self.names.add(name)
        for scope in self.chain():
            if scope is not self:
                scope.inner_names[name] += 1

    def release_name(self, name: str) -> None:
        """Releases a name without references."""
        self.names.discard(name)
        self.nodes_by_name.pop(name, None)
        stem, _, number = name.rpartition("_")
        for scope in self.chain():
            if number.isdecimal() and stem in scope.next_numbers:
                scope.next_numbers[stem] = min(int(number), scope.next_numbers[stem])
            if scope is not self:
                scope.inner_names[name] -= 1

    def add_node(self, kind: type[Node], default: str, schema: Schema, **fields: Any) -> TracedNode:
        """Adds a node, named after the variable that its value is bound to, or by the default."""
        locations = errors.user_stack()
        location = locations[0]
        if call_bindings(location).has_handlers and self._is_swallowed(location):
            raise trace_error(
                "W030",
                "an `except` around this call never sees it fail",
                hint="...options(fallback=lambda: ...)(...), or retry=3",
                why=f"{TRACED_ONCE_REASON}; the call is only described here, and runs later",
                location=location,
            )
        variable = bound_name(location)
        name = fields.pop("name", None) or variable or default
        draft = TracedNode(
            self.new_name(name),
            schema,
            kind,
            fields,
            bool(variable),
            self,
            self.active_guards,
            len(self.guards),
            locations=locations,
        )
        self.nodes.append(draft)
        self.nodes_by_name[draft.name] = draft
        return draft

    def _is_swallowed(self, location: CodeLocation) -> bool:
        """Whether an enclosing `except` catches every exception and continues."""
        file = location.code.co_filename
        if (try_blocks := self.root.try_blocks.get(file)) is None:
            try_blocks = self.root.try_blocks[file] = errors.try_blocks_at(location)
        return any(is_caught(try_block, position_of(location)) for try_block in try_blocks)

    def rename_node(self, draft: TracedNode, wanted: str, *, has_variable_name: bool) -> None:
        """Renames a node without references."""
        self.release_name(draft.name)
        draft.name, draft.has_variable_name = self.new_name(wanted), has_variable_name
        self.nodes_by_name[draft.name] = draft

    def name_after_variable(self, draft: TracedNode) -> None:
        """Names a node after the variable of the present call, if it has no variable name and no references yet."""
        variable = bound_name(errors.user_location())
        if variable and not draft.has_variable_name and not draft.is_used and draft.scope is self:
            self.rename_node(draft, variable, has_variable_name=True)


@dataclass(frozen=True, slots=True)
class NodeLine:
    """The location of a node, and those of the nodes in its body."""

    location: CodeLocation | None
    inner: NodeLines


NodeLines: TypeAlias = Mapping[str, NodeLine]
"""By the name of a node."""


def node_lines(drafts: Iterable[TracedNode]) -> dict[str, NodeLine]:
    """Returns the locations of nodes."""
    return {draft.name: NodeLine(draft.location, node_lines(draft.body_nodes)) for draft in drafts}


_scope: ContextVar[TraceScope | None] = ContextVar("orchestra_scope", default=None)


def current_scope() -> TraceScope | None:
    """Returns the innermost scope while a workflow function runs, else None."""
    return _scope.get()


def require_scope(what: str) -> TraceScope:
    """Returns the innermost scope. Raises `InputError` W001 outside of a workflow."""
    scope = _scope.get()
    if scope is None:
        raise errors.error_at(
            "W001",
            f"{what} is called outside a workflow",
            hint="call it in a function under @workflow",
            why="it describes a part of a workflow; there is nothing to run yet",
        )
    return scope


@contextmanager
def enter_scope(scope: TraceScope) -> Iterator[TraceScope]:
    """Makes a scope the innermost one inside the block."""
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def trace_error(
    code: str, message: str, *, hint: str = "", why: str = "", location: CodeLocation | None = None
) -> InputError:
    """Returns an error and records it on the scopes, so that an `except` in the body cannot hide it.

    An error in a returned value is located at the `return`, or at the `def` if there are several. If foreign code
    received a placeholder, the error is W014 at the user's own line.
    """
    scope = _scope.get()
    chain = [*scope.chain()] if scope is not None else []
    homes = {trace_scope.file for trace_scope in chain}
    if (
        location is None
        and scope is not None
        and (location := scope.return_location) is not None
        and location.offset < 0
    ):
        why = why or "one of its returns gives this"
    locations = [location] if location is not None else errors.caller_stack()
    own_location = next(
        (
            code_location
            for code_location in locations
            if not code_location.is_foreign or code_location.code.co_filename in homes
        ),
        locations[0],
    )
    first = own_location is locations[0]
    error = (
        errors.error_at(code, message, hint=hint, why=why, location=own_location)
        if first
        else _foreign_code_error(own_location, message)
    )
    for trace_scope in chain:
        trace_scope.errors.append(error)
    return error


def _foreign_code_error(location: CodeLocation, reason: str) -> InputError:
    if "validation error" in reason:
        hint = (
            f"build({errors.called_at(location) or 'Model'}, field=...) makes a model of values that are not known yet"
        )
    else:
        hint = "do this step in a function under @tool(effect='pure'), and call that here"
    message = f"this line hands a value of the workflow to code that cannot wait for it: {reason}"
    return errors.error_at("W014", message, hint=hint, why=TRACED_ONCE_REASON, location=location)


def bound_name(location: CodeLocation) -> str | None:
    """Returns the name that a call's result is bound to: `passages = search(...)`."""
    return call_bindings(location).target_name(location.offset)


def call_bindings(location: CodeLocation) -> CallBindings:
    """Returns the names that the calls of a code object are bound to, read once per workflow."""
    scope = current_scope()
    bindings_by_code = scope.root.call_bindings if scope is not None else {}
    if (cached_bindings := bindings_by_code.get(id(location.code))) is None:
        cached_bindings = bindings_by_code[id(location.code)] = CallBindings(location.code)
    return cached_bindings


def is_being_traced(function: Callable[..., Any] | None) -> bool:
    """Whether a workflow function is being traced in an enclosing scope."""
    scope = current_scope()
    while scope is not None and scope.root.function is not function:
        scope = scope.root.outer_trace
    return scope is not None


def body_effect(body: TraceScope) -> str:
    """Returns the first effect of the nodes of a body; `pure` if there is none."""
    return next((node.effect for node in body.nodes if node.effect != "pure"), "pure")


def position_of(location: CodeLocation) -> Position:
    """Returns the position of a location. Positions are cached by code object, which may contain many calls."""
    return errors.to_position(location.code, call_bindings(location).positions[location.offset // 2])


def trace(function: Callable[..., Any], *args: Any, **inputs: Any) -> Any:
    """Calls a function with placeholders and returns its result.

    Raises `InputError` W013 for code that tests identity or shape of placeholders, W014 for code that cannot handle
    them.
    """
    code: CodeType | None = getattr(function, "__code__", None)
    if code is not None and (blind := next(unsupported_tests(code), None)) is not None:
        raise _unsupported_test_error(*blind)
    try:
        return function(*args, **inputs)
    except (TypeError, ValueError) as error:
        if "Placeholder" not in (message := repr(error)) and "Maybe[" not in message:
            raise
        raise _placeholder_misuse_error(error) from error


def _unsupported_test_error(code: CodeType, last: int, word: str) -> InputError:
    location = CodeLocation(code, last)
    usual = "has_value(x)" if word == "is" else "first_of(when(length(x) == 1, lambda: ...), otherwise=...)"
    return trace_error(
        "W013",
        f"`{word}` looks past a placeholder, so it would be decided now",
        hint=errors.rewrite_hint(location) or usual,
        why=f"{TRACED_ONCE_REASON}; a choice that is settled before that belongs outside of the body",
        location=location,
    )


def _placeholder_misuse_error(error: Exception) -> InputError:
    """Returns the error of code that cannot handle a placeholder, at the innermost user line that called it."""
    scope = require_scope("a workflow's body")
    last = errors.innermost_user_location(error, {trace_scope.file for trace_scope in scope.chain()})
    reason = str(error).replace("Placeholder", "placeholder").splitlines()
    message = f"{type(error).__name__}: {reason[0] if reason else ''}"
    foreign_error = _foreign_code_error(last or errors.user_location(), message)
    for trace_scope in scope.chain():
        trace_scope.errors.append(foreign_error)
    return foreign_error


def return_location(function: Callable[..., Any]) -> CodeLocation:
    """Returns the `return` of a function; its `def` if there are several, since the one that ran is unknown."""
    return CodeLocation(function.__code__, bytecode.single_return_offset(function.__code__))
