"""Growth: how much work a schema makes, counted before it is done. Small schemas may refer to each other in 2^n ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestra.core.errors import InputError
from orchestra.schema.fields import resolve_reference
from orchestra.schema.strict_json import canonical

MAX_PATHS = 1_000_000
"""Ways in which the parts of a schema lead to one place of a value, at most: some hundredths of a second."""
MAX_CHAIN = 200
"""Types that lead from one to the next, at most."""

_INPLACE_KEYS = ("not", "if", "then", "else")
_INPLACE_LIST_KEYS = ("allOf", "anyOf", "oneOf")
_CHILD_KEYS = ("items", "additionalProperties", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
_CHILD_MAP_KEYS = ("properties", "patternProperties")
_UNSUPPORTED_KEYS = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor")


def check_complexity(schema: Mapping[str, Any]) -> None:
    """Raises `InputError` L042 for a schema whose check could take for ever, or that refers to anything but its own parts by path."""
    try:
        if b'"$' not in canonical(schema):
            return  # without references it makes as much work as it is long
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError("L042", f"not a schema: {str(error)[:200]}", hint="JSON Schema 2020-12, as JSON") from error
    _check_cycles(schema)
    if _PathCounter(schema).count(schema, 0) > MAX_PATHS:
        raise InputError("L042", "its parts refer to each other in more than a million ways", hint="name each type once in a union")


def _check_cycles(root: Mapping[str, Any]) -> None:
    """Refuses a type that is itself, with nothing around it: `A: {anyOf: [A, str]}`."""
    open_, done = set[int](), set[int]()
    starts: list[Any] = [root]
    seen = set[int]()
    while starts:
        start = starts.pop()
        if not isinstance(start, Mapping) or id(start) in seen:
            continue
        seen.add(id(start))
        here = list(inplace_subschemas(start, root))
        starts += [*here, *_child_subschemas(start)]
        line = [(start, iter(here))] if id(start) not in done else []
        open_ = {id(start)}
        while line:
            node, parts = line[-1]
            part = next(parts, None)
            if part is None:
                done.add(id(node))
                open_.discard(id(node))
                line.pop()
            elif id(part) in open_:
                raise InputError("L042", "a type that holds itself, with nothing around it", hint="put it into a field or a list")
            elif isinstance(part, Mapping) and id(part) not in done:
                open_.add(id(part))
                line.append((part, inplace_subschemas(part, root)))


class _PathCounter:
    """Counts, for each part of a schema, how often one place of a value may be looked at below it."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.counts: dict[int, int] = {}

    def count(self, schema: Any, depth: int) -> int:
        """The count for one part; 1 for a part that is being counted, for the validator notices circles itself."""
        if not isinstance(schema, Mapping):
            return 1
        if (known := self.counts.get(id(schema))) is not None:
            return known
        if depth > MAX_CHAIN:
            raise InputError("L042", f"types that lead to each other in a chain of more than {MAX_CHAIN}", hint="shorten the chain")
        self.counts[id(schema)] = 1
        if "$id" in schema and schema is not self.root:
            raise InputError("L042", "a part has an `$id` of its own", hint="refer to types by #/$defs/NAME")
        if foreign := next((key for key in _UNSUPPORTED_KEYS if key in schema), None):
            raise InputError("L042", f"`{foreign}` is not supported", hint="refer to types by #/$defs/NAME")
        here = sum([self.count(part, depth + 1) for part in inplace_subschemas(schema, self.root)])
        inside = max([self.count(part, depth + 1) for part in _child_subschemas(schema)], default=0)
        ways = self.counts[id(schema)] = min(1 + here + inside, MAX_PATHS + 1)
        return ways


def inplace_subschemas(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Any]:
    """The parts that judge the same value as the schema itself. Raises `InputError` L042 for a reference that leads out of the schema."""
    if isinstance(reference := schema.get("$ref"), str):
        if reference != "#" and not reference.startswith("#/"):
            raise InputError("L042", f"the reference {reference[:100]!r} leads out of the schema", hint="refer to types by #/$defs/NAME")
        if (found := resolve_reference(reference, root)) is not None:
            yield found
    yield from (schema[key] for key in _INPLACE_KEYS if key in schema)
    for key in _INPLACE_LIST_KEYS:
        listed = schema.get(key)
        yield from listed if isinstance(listed, list | tuple) else ()
    depending = schema.get("dependentSchemas")
    yield from depending.values() if isinstance(depending, Mapping) else ()


def _child_subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    yield from (schema[key] for key in _CHILD_KEYS if key in schema)
    first = schema.get("prefixItems")
    yield from first if isinstance(first, list | tuple) else ()
    for key in _CHILD_MAP_KEYS:
        named = schema.get(key)
        yield from named.values() if isinstance(named, Mapping) else ()


def count_evaluations(schema: Mapping[str, Any], value: Any, limit: int) -> int:
    """How many parts of a schema are tried on how many parts of a value, if nothing is remembered; counting ends after `limit`."""
    line: list[tuple[Any, Any]] = [(schema, value)]
    count = 0
    while line and count <= limit:
        here, one = line.pop()
        if not isinstance(here, Mapping):
            continue
        count += 1
        # Plain parts are not worth a try of their own: a long list of numbers is no riddle.
        line += [(part, one) for part in inplace_subschemas(here, schema)]
        match one:
            case dict():
                line += [(part, item) for name, item in one.items() for part in _property_subschemas(here, name) if _has_subschemas(part)]
            case list() | tuple():
                first = here.get("prefixItems", ())
                line += [
                    (part, item)
                    for index, item in enumerate(one)
                    if _has_subschemas(part := first[index] if index < len(first) else here.get("items"))
                ]
            case _:
                pass
    return count


def _has_subschemas(schema: Any) -> bool:
    return isinstance(schema, Mapping) and any(
        key in schema
        for key in ("$ref", *_INPLACE_LIST_KEYS, *_INPLACE_KEYS, *_CHILD_KEYS, *_CHILD_MAP_KEYS, "prefixItems", "dependentSchemas")
    )


def _property_subschemas(schema: Mapping[str, Any], name: str) -> list[Any]:
    found = schema.get("properties", {}).get(name)
    patterns = list(schema.get("patternProperties", {}).values())
    return [
        *([] if found is None else [found]),
        *patterns,
        *(schema[key] for key in ("additionalProperties",) if key in schema and found is None),
    ]
