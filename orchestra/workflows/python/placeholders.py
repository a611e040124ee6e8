"""Placeholders: what stands for a value while a workflow function is traced.

A placeholder knows its CEL, its type (JSON Schema) and what it reads. Its own names start with `_`, so that every field of a
value can be written as `value.field`. What would need the value itself, such as its truth or its length, refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from typing_extensions import TypeVar

from orchestra.schema.json_schema import TYPE_NAMES, others, record
from orchestra.schema.types import Schema, branches, bundled, field, item, resolve
from orchestra.workflows.expressions.parser import KEYWORDS, escaped, quoted
from orchestra.workflows.expressions.temporal import AS_TEXTS, constant_format, misread
from orchestra.workflows.expressions.type_checker import kinds
from orchestra.workflows.python import errors
from orchestra.workflows.python.pending import (
    ATOM,
    MARK,
    RANKS,
    UNKNOWN,
    Wired,
    cel_of,
    checked,
    express,
    floating,
    joined,
    plain_json,
    said,
    written,
)
from orchestra.workflows.python.printer import typed
from orchestra.workflows.python.scopes import ONCE, Draft, Presence, current, fault, tracing

_NUMBERS = frozenset({"int", "float"})
_TOOL = "do it in a @tool(effect='pure')"

R = TypeVar("R", covariant=True)


class Placeholder:
    """Stands for a value that is known when the workflow runs."""

    __slots__ = ("_wired",)
    _wired: Wired

    def __init__(self, wired: Wired) -> None:
        object.__setattr__(self, "_wired", wired)

    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]  # `isinstance` asks for it; it must stand in the class body
        wired = self._wired
        raise fault(
            "W005",
            f"{said(wired)} ({typed(wired.schema)}) has no value yet",
            hint="let an agent or a tool return a Literal, and compare that: kind.label == '...'",
            why=f"{ONCE}; isinstance() cannot wait for one",
        )

    def __repr__(self) -> str:
        return f"<{said(self._wired)}: {typed(self._wired.schema)}{MARK}"

    def __str__(self) -> str:
        if tracing() is not None:
            have = kinds(self._wired.schema)
            hint = "{x}, without str()" if have == {"str"} else "as_text({x})" if have <= {"str", "int", "float", "bool"} else _TOOL
            _refuse(self, "str()", f"{hint}; repr({{x}}) shows what it stands for")
        return repr(self)  # no workflow is being described: it goes nowhere but into somebody's message

    def __getattr__(self, name: str) -> Placeholder:
        if name.startswith("_"):
            raise AttributeError(name)
        return Placeholder(_selected(self._wired, name))

    def __getitem__(self, key: Any) -> Placeholder:
        return Placeholder(_indexed(self._wired, key))

    def __iter__(self) -> Iterator[Placeholder]:
        shape = resolve(self._wired.schema)
        if "prefixItems" in shape:  # `a, b = pair`: the length is in the type
            return iter([self[index] for index in range(len(shape["prefixItems"]))])
        text = said(self._wired)
        raise fault(
            "W004",
            f"{text} ({typed(shape)}) has no length yet: it cannot be looped over or unpacked",
            hint=errors.instead(errors.user_spot()) or f"map_(lambda item: ..., {text})",
            why=f"{ONCE}; how many elements there will be is not known either",
        )

    def __bool__(self) -> bool:
        wired, text = self._wired, said(self._wired)
        have = kinds(wired.schema) - {"any"}
        asked = f"present({text})" if "null" in have else f"length({text}) > 0" if have <= {"list", "str", "map"} else ""
        if have <= {"bool"} or not asked:
            hint = errors.instead(errors.user_spot()) or f"first_of(when({text}, lambda: ...), otherwise=...)"
        else:
            hint = f"say what is asked: first_of(when({asked}, lambda: ...), otherwise=...)"
        raise fault(
            "W005",
            f"{text} has no truth value yet",
            hint=hint,
            why=f"{ONCE}; Python's if, and, or, not, in and a < b < c cannot wait for one",
        )

    def __neg__(self) -> Placeholder:
        return Placeholder(binary("-", 0, self))

    def __invert__(self) -> NoReturn:
        _refuse(self, "~", "not_({x})")


class Guarded(Generic[R]):
    """A value that may be skipped or withheld. `first_of` takes it, `values` a list of them, and `needed` says that it may be missing."""

    def __init__(self, wired: Wired, *, mapped: bool = False) -> None:
        self._wired, self._mapped = wired, mapped

    def __repr__(self) -> str:
        return f"<{said(self._wired)}: {self._type()}{MARK}"

    def _type(self) -> str:
        inner = typed(self._wired.schema)
        return f"list[Guarded[{inner[5:-1]}]]" if self._mapped else f"Guarded[{inner}]"

    if not TYPE_CHECKING:  # for checkers it has no attributes at all, which is what they should say

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("__"):
                raise AttributeError(name)
            raise missing(self, f".{name}")

        def __getitem__(self, key: object) -> NoReturn:
            raise missing(self, "[...]")

        def __iter__(self) -> NoReturn:
            raise missing(self)

        def __len__(self) -> NoReturn:
            raise missing(self)

        def __bool__(self) -> NoReturn:
            raise missing(self)

        def __format__(self, spec: str) -> NoReturn:
            raise missing(self)

        def __str__(self) -> NoReturn:
            raise missing(self)


def missing(guarded: Guarded[Any], use: str = "") -> Exception:
    """The error of using a value as if it were sure to be there."""
    wired, text = guarded._wired, said(guarded._wired)
    if guarded._mapped:
        return fault(
            "W009",
            f"{text} is {guarded._type()}: some elements may be skipped or withheld",
            hint=f"values({text}) for the list of those that are there",
        )
    state = "withheld" if wired.node is not None and "checks" in wired.node.fields and not wired.node.own else "skipped"
    hint = f"first_of({text}, otherwise=...){use}" if use else f"first_of({text}, otherwise=...)"
    return fault(
        "W009",
        f"{text} may be {state}, and here a value is needed",
        hint=f"{hint}; or needed({text}), and what uses it is {state} with it",
    )


def _refuse(placeholder: Any, what: str, hint: str) -> NoReturn:
    wired = placeholder._wired
    text = said(wired)
    raise fault(
        "W005",
        f"{text} ({typed(wired.schema)}) has no value yet",
        hint=errors.instead(errors.user_spot()) or hint.format(x=text),
        why=f"{ONCE}; Python's {what} cannot wait for one",
    )


_REFUSED: tuple[tuple[str, str, str], ...] = (
    ("format", "f-string", "'text ' + {x}; or give the agent another input, and name it in its prompt"),
    ("len", "len()", "length({x})"),
    ("contains", "in", "contains({x}, item)"),
    ("await", "await", "leave the await out: in a workflow a call is wired, not run"),
    ("int float index complex round trunc floor ceil abs pos", "conversion", "do it in a @tool(effect='pure')"),
    ("floordiv rfloordiv", "//", "do it in a @tool(effect='pure')"),
    ("mod rmod", "%", "do it in a @tool(effect='pure'); a text is put together with +"),
    ("pow rpow", "**", "do it in a @tool(effect='pure')"),
    ("divmod rdivmod matmul rmatmul lshift rshift xor rxor", "operator", "do it in a @tool(effect='pure')"),
    ("enter aenter aiter next reversed reduce_ex", "protocol", "pass {x} to an agent, a tool or a workflow"),
    ("hash", "dict and set", "a list; or do it in a @tool(effect='pure')"),
    ("call", "call", "only agents, tools and workflows can be called"),
)
"""Special methods that need the value: their names, what they are called, and what to write instead."""


def _refusing(what: str, hint: str) -> Callable[..., NoReturn]:
    def refuse(self: Placeholder, *rest: Any) -> NoReturn:
        _refuse(self, what, hint)

    return refuse


def _unchanged(self: Placeholder, *rest: Any) -> NoReturn:
    raise fault(
        "W005",
        f"{said(self._wired)} cannot be changed: values never change",
        hint="bind a new name, or make a new value with new(Model, field=...)",
    )


def _operating(op: str, swapped: bool) -> Callable[[Any, Any], Placeholder]:
    return lambda self, other: Placeholder(binary(op, other, self) if swapped else binary(op, self, other))


for _names, _what, _hint in _REFUSED:
    for _name in _names.split():
        setattr(Placeholder, f"__{_name}__", _refusing(_what, _hint))
for _name in ["setattr", "setitem", "delattr", "delitem"]:
    setattr(Placeholder, f"__{_name}__", _unchanged)
for _name, _op in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    setattr(Placeholder, f"__{_name}__", _operating(_op, swapped=False))
for _name, _op in {"and": "&&", "or": "||", "add": "+", "sub": "-", "mul": "*", "truediv": "/"}.items():
    setattr(Placeholder, f"__{_name}__", _operating(_op, swapped=False))
    setattr(Placeholder, f"__r{_name}__", _operating(_op, swapped=True))


def _selected(wired: Wired, name: str) -> Wired:
    """`.name` of a value. Raises `InputError` W002 where its type has none."""
    used(wired)
    found = UNKNOWN if wired.unknown else field(wired.schema, name)
    if isinstance(found, str):
        raise _no_field(wired, name, found)
    base = wired.within(ATOM)
    plain = name.isascii() and name.isidentifier() and name not in KEYWORDS
    cel = f"{base}.{name}" if plain else f"{base}[{quoted(name)}]"
    return replace(wired, cel=cel, rank=ATOM, schema=found, node=None, parts=(), made=None)


def _no_field(wired: Wired, name: str, reason: str) -> Exception:
    text, have = said(wired), kinds(wired.schema)
    python = {"str": str, "list": list, "int": int, "float": float, "map": dict}
    if len(have) == 1 and hasattr(python.get(next(iter(have)), object), name):
        hint = {"append": f"{text} + [item]", "get": f"{text}['key']"}.get(name, f"do it in a @tool(effect='pure') that takes {text}")
        return fault("W002", f"{text}.{name}() cannot run: {text} is a {typed(wired.schema)} that is not known yet", hint=hint)
    if reason.startswith("may be null"):
        titles = [part["title"] for part in branches(wired.schema) if part.get("title", "").isidentifier()]
        other = f"{titles[0]}(...)" if len(titles) == 1 else "..."
        return fault(
            "W002",
            f"{text} may be None ({typed(wired.schema)}), and None has no field {name!r}",
            hint=f"or_else({text}, {other}).{name} says what stands in for None",
        )
    return fault("W002", f"{text}: {reason}")


def _indexed(wired: Wired, key: Any) -> Wired:
    """`[key]` of a list or a mapping. Raises `InputError` W003."""
    text = said(wired)
    if type(key) is slice:
        hint = f"filter_(lambda item: ..., {text}), or do it in a @tool(effect='pure')"
        raise fault("W003", f"{text} cannot be sliced: its length is not known yet", hint=hint)
    used(wired)
    have = kinds(wired.schema)
    base = wired.within(ATOM)
    if type(key) is int and have == {"list"}:
        found = item(wired.schema, key if key >= 0 else None)
        if isinstance(found, str):
            raise fault("W003", f"{text}: {found}")
        at = str(key) if key >= 0 else f"size({wired.cel}) - {-key}"
        return replace(wired, cel=f"{base}[{at}]", rank=ATOM, schema=found, node=None, parts=(), made=None)
    if type(key) is str and have == {"map"}:
        return _selected(wired, key)
    if (type(key) is Placeholder and have == {"list"}) or (have == {"map"} and not resolve(wired.schema).get("properties")):
        return express("{0}[{1}]", ATOM, wired, lift(key))
    if wired.unknown:
        return replace(wired, cel=f"{base}[{lift(key).cel}]", rank=ATOM, node=None)
    if have == {"map"}:
        raise fault("W003", f"{text} is {typed(wired.schema)}: it has fields, not keys", hint=f"write {text}.{key}")
    if "null" in have:
        raise fault("W003", f"{text} may be None ({typed(wired.schema)})", hint=f"or_else({text}, ...) says what stands in for None")
    raise fault("W003", f"{text} is {typed(wired.schema)}: it has no [{key!r}]")


def used(wired: Wired) -> None:
    """Marks what an expression reads as used here. Raises `InputError` W006 or W009 where it cannot be."""
    _seen(wired)
    for read in wired.reads:
        if isinstance(read, Draft):
            read.used = True


def _seen(wired: Wired) -> None:
    """Refuses an expression of another body, or of a node that may be missing here."""
    scope = tracing()
    if scope is None or all(wired.scope is not one for one in scope.chain()):
        raise fault(
            "W006",
            f"{said(wired)} belongs to another map_ body or workflow",
            hint="return it from the body, and use what map_ gives",
            why="a body runs once for each element, so outside of it there is no one value",
        )
    standing = scope.standing
    for node in wired.needs:
        if any(guard is not (standing[index] if index < len(standing) else None) for index, guard in enumerate(node.guards)):
            raise missing(Guarded(replace(wired, node=node)))
        if node.presence is Presence.OPEN and scope.ending is None:
            raise fault(
                "W009",
                f"{said(wired)} is missing where all its options are, and here a value is needed",
                hint=f"{node.name} = first_of(..., otherwise=...)",
            )


def peek(value: Any) -> Wired:
    """A value as an expression, without using it yet; also of one that may be missing."""
    if type(value) is Guarded:
        return value._wired
    if type(value) is Placeholder:
        _seen(value._wired)
        return value._wired
    return lift(value)


def renamed(wired: Wired) -> Placeholder:
    """A node's value, the node named after the present call's variable where it has no such name yet and nothing refers to it."""
    if (node := wired.node) is not None and wired.cel in (node.name, f"{node.name}.values"):
        rest = wired.cel[len(node.name) :]
        wired.scope.rename(node)
        wired = replace(wired, cel=node.name + rest)
    return Placeholder(wired)


def lift(value: Any) -> Wired:
    """A Python value or a placeholder as an expression. Raises `InputError` W005, W006, W007 or W009."""
    if type(value) is Placeholder:
        used(value._wired)
        return value._wired
    if type(value) is Guarded:
        raise missing(value)
    return _constant(value) if not holds(value) else _collected(value)


def holds(value: Any) -> bool:
    """Whether a Python value has a placeholder in it."""
    if type(value) in (Placeholder, Guarded):
        return True
    if isinstance(value, Mapping):
        return any(holds(inner) for pair in value.items() for inner in pair)
    return isinstance(value, list | tuple | set | frozenset) and any(holds(inner) for inner in value)


def _constant(value: Any) -> Wired:
    plain = plain_json(value)
    schema: Schema = {"const": plain} if isinstance(plain, list | dict) else {"const": plain, "type": TYPE_NAMES[type(plain)]}
    text = cel_of(plain)
    if stands := constant_format(value):
        schema["format"] = stands
    return Wired(text, 7 if text.startswith("-") else ATOM, schema, current("an expression"))


def _collected(value: Any) -> Wired:
    """A list or mapping with placeholders in it."""
    if isinstance(value, Mapping):
        entries = {str(key): lift(inner) for key, inner in value.items()}
        schema = bundled(record({key: one.schema for key, one in entries.items()}))
        cel = "{" + ", ".join(f"{quoted(key)}: {one.cel}" for key, one in entries.items()) + "}"
        made = {key: template(inner)[0] for key, inner in value.items()}
        return joined(cel, ATOM, schema, [*entries.values()], made=made)
    if isinstance(value, set | frozenset):
        raise fault("W007", "a set of values that are not known yet has no order", hint="pass a list")
    items = [lift(inner) for inner in value]
    fixed = {"type": "array", "prefixItems": [one.schema for one in items], "minItems": len(items), "maxItems": len(items)}
    cel = "[" + ", ".join(one.cel for one in items) + "]"
    return joined(cel, ATOM, bundled(fixed), items, made=[template(inner)[0] for inner in value])


def binary(op: str, left: Any, right: Any) -> Wired:
    """`left op right`. Raises `InputError` W008 where it is not defined, or can never hold."""
    a, b = lift(left), lift(right)
    ka, kb = kinds(a.schema), kinds(b.schema)
    unknown = a.unknown or b.unknown
    if not unknown:
        _defined(op, a, b, ka, kb)
        if op in ("==", "!="):
            _possible(a, b)
            _possible(b, a)
    if ka | kb <= _NUMBERS and (op == "/" or ka != kb) and not unknown:
        a, b = floating(a, ka), floating(b, kb)
    rank = RANKS[op]
    left_text = a.within(rank + 1 if rank == 4 else rank)
    right_text = b.within(rank if op in ("&&", "||") else rank + 1)
    cel = f"{left_text} {op} {right_text}"
    if op == "+" and ka == kb == {"str"} and not unknown:
        # As a template it is a text with references in it, however long; as an expression it is checked where it is used.
        return replace(joined(cel, rank, {"type": "string"}, [a, b]), parts=(*_parts(a, left), *_parts(b, right)))
    return joined(cel, rank, checked(cel, (a, b)), [a, b])


def _parts(wired: Wired, value: Any) -> tuple[str | Wired, ...]:
    if wired.parts:
        return wired.parts
    return (wired,) if type(value) is Placeholder else (value,)


def _defined(op: str, a: Wired, b: Wired, ka: frozenset[str], kb: frozenset[str]) -> None:
    both = ka | kb
    if what := misread(op, a.schema, b.schema):
        hint = "do it in a @tool(effect='pure')"
        raise fault("W008", f"{said(a)} {op} {said(b)} would take {what} as a text", hint=hint, why=AS_TEXTS)
    if op in ("==", "!="):
        fine = bool(ka & kb) or both <= _NUMBERS or "any" in both or bool(ka & _NUMBERS and kb & _NUMBERS)
    elif op in ("&&", "||"):
        fine = both == {"bool"}
    else:
        texts = op in ("+", "<", "<=", ">", ">=") and both == {"str"}
        fine = both <= _NUMBERS or texts or (op == "+" and both == {"list"})
    if fine:
        return
    python = {"&&": "&", "||": "|"}.get(op, op)
    first, second = said(a), said(b)
    message = f"{first} {python} {second} is not defined: {_kind(a)} {python} {_kind(b)}"
    if "null" in both and op not in ("==", "!="):
        raise fault("W008", message, hint=f"or_else({first if 'null' in ka else second}, ...) says what stands in for None")
    if op == "+" and "str" in both:
        other = second if ka == {"str"} else first
        raise fault("W008", message, hint=f"as_text({other}) makes a text of it")
    hint = "and, or of conditions: all_of(...), any_of(...); compare values first" if op in ("&&", "||") else ""
    raise fault("W008", message, hint=hint)


def _kind(wired: Wired) -> str:
    """The type of an operand; of a constant without its value."""
    return typed({"type": wired.schema["type"]} if "const" in wired.schema and "type" in wired.schema else wired.schema)


def _possible(wired: Wired, other: Wired) -> None:
    """Refuses a comparison with a constant that the type never has."""
    if "const" not in other.schema or other.reads or not wired.reads:
        return
    value, text = other.schema["const"], said(wired)
    if value is None:
        if not kinds(wired.schema) & {"null", "any"}:
            raise fault("W008", f"{text} is {typed(wired.schema)}: it is never None", hint="leave the comparison out")
        return
    if (found := others(wired.schema, value)) is not None:
        hint = f"did you mean {found.near!r}?" if found.near else ""
        raise fault("W008", f"{text} is {typed(wired.schema)}: it is never {value!r}", hint=hint)


def template(value: Any) -> tuple[Any, Schema]:
    """A value as it stands in a node, and its type. Raises `InputError` W005, W006, W007 or W009."""
    if type(value) is Placeholder:
        used(value._wired)
        return written(value._wired), value._wired.schema
    if type(value) is Guarded:
        raise missing(value)
    if holds(value):
        wired = _collected(value)
        return wired.made, wired.schema
    plain = plain_json(value)
    return escaped(plain), {"const": plain}
