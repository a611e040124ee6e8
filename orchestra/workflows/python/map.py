"""Mapping: what happens for each element of a list that is not known yet."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, overload

from orchestra.schema.types import Schema, elements
from orchestra.workflows.expressions.type_checker import kinds
from orchestra.workflows.model import Block, CallNode
from orchestra.workflows.python import errors
from orchestra.workflows.python.conditions import boolean
from orchestra.workflows.python.pending import ATOM, UNKNOWN, Wired, checked, joined, node_value, said
from orchestra.workflows.python.placeholders import Guarded, Placeholder, holds, lift, missing, peek, renamed, template
from orchestra.workflows.python.printer import typed
from orchestra.workflows.python.scopes import Draft, Scope, Variable, current, effect, fault, inside, returning, traced

T = TypeVar("T")
U = TypeVar("U")


def map_(
    body: Callable[[T], U],
    items: Sequence[T],
    /,
    *,
    limit: int | None = None,
    concurrency: int | None = None,
    at_least: int | Literal["all"] | None = None,
) -> list[U]:
    """What a body gives for each element, in parallel, in the same order.

    A body with one call is a node under `each`; with several, a block of nodes; with none, an expression. An element that
    fails is left out (`Result.left_out` has it). Where elements may be withheld or skipped, the result is a `list[Guarded[U]]`,
    and `values` gives the list of those that are there. `limit` is the number of elements at most (10,000 at most),
    `concurrency` how many run at once. `at_least="all"`, or a number, is how many must have a value: as soon as that cannot be met the
    list fails (E034), and what still runs of it is cancelled.
    Raises `InputError` (W-codes) for mistakes.
    """
    scope, given = current("map_"), _listed("map_", items)
    for word, number in (("limit", limit), ("concurrency", concurrency), ("at_least", None if _all(at_least) else at_least)):
        if number is not None and (type(number) is not int or not 1 <= number <= 10_000):
            said_so = repr(number) if not holds(number) else f"{said(lift(number))}, a value of the workflow"
            kind, hint = ("`all` or a number", 'at_least="all"') if word == "at_least" else ("a number", f"{word}=8")
            raise fault("W016", f"{word} must be {kind}, known when the workflow is written, and is {said_so}", hint=hint)
    name, inner, result = _element(body, given, scope)
    guarded = type(result) is Guarded
    with inside(inner):
        if guarded and result._mapped:
            raise missing(result)
        inner.ending = returning(body) if _file(body) else errors.user_spot()
        text, schema = template(Placeholder(replace(result._wired, needs=frozenset())) if guarded else result)
        wired = lift(result) if not guarded and not inner.nodes else peek(result)
    if not inner.nodes:
        if at_least is not None:
            why = "without a call none of its elements fails alone"
            hint = "leave it out; or when(length(items) >= 3, lambda: ...) around what uses the list"
            raise fault("W016", "at_least is for a body that calls something, and this one calls nothing", hint=hint, why=why)
        return cast("list[U]", Placeholder(_mapped(given, wired, name)))
    each = {"each": f"${{{given.cel}}}", "as_": name, "limit": limit, "concurrency": concurrency, "at_least": at_least}
    draft = _each(scope, inner, wired, text, schema, each)
    made = node_value(draft, scope)
    return cast("list[U]", Guarded(made, mapped=True) if guarded else Placeholder(made))


def _all(at_least: Any) -> bool:
    return type(at_least) is str and at_least == "all"


def _listed(word: str, items: Any) -> Wired:
    if not holds(items):
        usual = "[item for item in items if ...]" if word == "filter_" else "[reader(text=item) for item in items]"
        hint = errors.known(errors.user_spot()) or usual
        raise fault("W015", "these items are known now", hint=hint, why=f"{word} is for lists that are not")
    wired = lift(items)
    if not wired.unknown and kinds(wired.schema) != {"list"}:
        hint = f"or_else({said(wired)}, []) says what stands in for None" if "null" in kinds(wired.schema) else ""
        raise fault("W003", f"{word} takes a list, and {said(wired)} is {typed(wired.schema)}", hint=hint)
    return wired


def _element(body: Callable[..., Any], given: Wired, scope: Scope) -> tuple[str, Scope, Any]:
    """The name of the element, the scope of the body, and what it gave."""
    parameters = [*inspect.signature(body).parameters.values()]
    required = [one for one in parameters if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(required) > 1 or not parameters:
        raise fault(
            "W016", f"the body takes one element, and this one takes {len(required)} arguments", hint="map_(lambda item: ..., items)"
        )
    schema = UNKNOWN if given.unknown else cast(Schema, elements(given.schema))
    inner = Scope(parent=scope, home=_file(body) or scope.home, unknown=scope.unknown)
    name = inner.fresh((required or parameters)[0].name)
    element = Wired(name, ATOM, schema, inner, frozenset({Variable(name, schema)}))
    with inside(inner):
        return name, inner, traced(body, Placeholder(element))


def _file(body: Any) -> str:
    code = getattr(body, "__code__", None)
    return code.co_filename if code is not None else ""


def _mapped(given: Wired, made: Wired, name: str) -> Wired:
    """A body without nodes: `items.map(item, ...)`."""
    outer = frozenset(read for read in made.reads if read.name != name)
    inner = replace(made, reads=outer, scope=given.scope, node=None)
    cel = f"{given.within(ATOM)}.map({name}, {made.cel})"
    return joined(cel, ATOM, checked(cel, (given, inner)), [given, inner])


def _each(scope: Scope, inner: Scope, wired: Wired, text: Any, schema: Schema, each: dict[str, Any]) -> Draft:
    """The node that runs a body for each element: the body's only node, or a block of its nodes."""
    only = inner.nodes[0]
    if len(inner.nodes) > 1 or wired.cel != only.name or not _moves(scope, only, each["as_"]):
        block = Block(nodes={draft.name: draft.frozen() for draft in inner.nodes}, output=text)
        draft = scope.add(CallNode, "mapped", schema, call=block, **each)
        draft.effect, draft.inner = effect(inner), inner.nodes
        return draft
    when = only.frozen().when
    inner.free(only.name)
    draft = scope.add(only.kind, only.name, only.schema, **only.fields, **each)
    draft.fields["when"], draft.effect, draft.inner = when, only.effect, only.inner
    draft.named = draft.named or only.named
    return draft


def _moves(scope: Scope, only: Draft, element: str) -> bool:
    """Whether a node keeps its meaning outside of its body: a condition that reads no element is asked once under `each`."""
    own = only.guards[len(only.guards) - only.own :]
    return not own or (not scope.guards and all(any(read.name == element for read in guard.reads) for guard in own))


def filter_(test: Callable[[T], bool], items: Sequence[T], /) -> list[T]:
    """The elements for which a condition holds. Its body calls nothing. Raises `InputError` (W-codes) for mistakes."""
    scope, given = current("filter_"), _listed("filter_", items)
    name, inner, result = _element(test, given, scope)
    if inner.nodes:
        called = inner.nodes[0].name
        hint = f"judged = map_(lambda {name}: {called}(...), ...), then filter_ by what it says"
        raise fault("W016", f"filter_ takes a condition, and this one calls {called}", hint=hint)
    if not holds(result):
        raise fault("W015", f"this condition is known now: {result!r}", hint="a Python `if` outside of the workflow's body")
    with inside(inner):
        condition = boolean(lift(result), "filter_")
    outer = replace(condition, reads=frozenset(read for read in condition.reads if read.name != name), scope=given.scope, node=None)
    cel = f"{given.within(ATOM)}.filter({name}, {condition.cel})"
    return cast("list[T]", Placeholder(joined(cel, ATOM, checked(cel, (given, outer)), [given, outer])))


@overload
def values(items: Sequence[Guarded[T]], /) -> list[T]: ...
@overload
def values(items: Sequence[T], /) -> list[T]: ...
def values(items: Any, /) -> Any:
    """Of a list whose elements may be missing, those that are there, in the same order."""
    if type(items) is Guarded and items._mapped:
        return renamed(items._wired)
    if type(items) is not Placeholder and holds(items):
        one = f"needed({said(items._wired)})" if type(items) is Guarded else "first_of(a, b, otherwise=...)"
        raise fault("W016", "values() takes the list that map_ gave", hint=f"{one} for single values")
    return items
