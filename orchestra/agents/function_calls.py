"""Function calls: output types that depend on the functions declared in a call's input.

An agent that receives functions may call only these. Their declarations come with each call, in the dialect of the
Berkeley Function Calling Leaderboard (https://gorilla.cs.berkeley.edu/leaderboard.html) or as JSON Schema, and are
converted to the output type: one branch per function, its name a constant, its arguments typed as declared. Under
constrained decoding an undeclared function cannot be sampled; otherwise the answer is validated against the same type.
A declaration is data: only the keys below are read, so no reference is followed and no pattern is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.suggestions import closest_match
from orchestra.schema.fields import expand_schema
from orchestra.schema.types import Schema

CallFields: TypeAlias = Mapping[str, str]
"""Fields of an output that list calls, each with the input that lists the functions."""

MAX_FUNCTIONS = 128
"""Maximum number of functions. With more, a prompt has too many to choose from, and the grammar costs more than the
answer.
"""
MAX_TYPES = 2_000
"""Maximum number of parameter types that are compiled, including nested ones. With more, only the function names are
constrained.
"""
MAX_DEPTH = 8
"""Maximum nesting of types. Deeper types are any value."""

_TYPE_NAMES = {
    **{name: name for name in ("string", "integer", "number", "boolean", "null", "array", "object")},
    "str": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
    "tuple": "array",
    "String": "string",
}
"""Type names of declarations. `any` and unknown names are any value."""
_BOUND_KEYS = {
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
}


def check_call_fields(fields: CallFields, inputs: Schema, output: Schema, location: SourceLocation | None) -> None:
    """Checks the `calls:` of a card.

    Raises:
        InputError: A015 for a field that does not list calls, or an input that does not list functions.
    """
    for name, source in fields.items():
        output_fields, input_fields = output.get("properties", {}), inputs.get("properties", {})
        if name not in output_fields:
            raise _unknown_field(f"there is no output {name!r}", name, output_fields, location)
        if source not in input_fields:
            raise _unknown_field(f"there is no input {source!r}", source, input_fields, location)
        if not any(_lists_calls(branch, output) for branch in expand_schema(output_fields[name], output)):
            hint = (
                "list[Call], with types: Call: {type: object, properties: {name: {type: string}, arguments: {type:"
                " object}}}"
            )
            raise InputError(
                "A015",
                f"calls: the output {name!r} is not a list of records with `name` and `arguments`",
                location=location,
                hint=hint,
            )
        if not any(branch.get("type") == "array" for branch in expand_schema(input_fields[source], inputs)):
            raise InputError(
                "A015",
                f"calls: the input {source!r} is not a list of functions",
                location=location,
                hint="list[Function]",
            )


def _lists_calls(schema: Mapping[str, Any], root: Schema) -> bool:
    items = expand_schema(schema.get("items", {}), root) if schema.get("type") == "array" else ()
    return any({"name", "arguments"} <= item.get("properties", {}).keys() for item in items)


def narrow_output(schema: Schema, fields: CallFields, inputs: Mapping[str, Any]) -> Schema:
    """Returns the output type of one call: each element of these fields is a call of one of the functions in the
    inputs.

    Raises:
        InputError: A016 if an input has no functions, or their names are not distinct.
    """
    properties = dict(schema["properties"])
    for name, source in fields.items():
        branches = _call_schemas(inputs.get(source), source)
        limits = next(
            (branch for branch in expand_schema(properties[name], schema) if branch.get("type") == "array"), {}
        )
        bounds = {key: limits[key] for key in _BOUND_KEYS["array"] if key in limits}
        properties[name] = (
            {"type": "array", **bounds, "items": {"anyOf": branches}} if branches else {"type": "array", "maxItems": 0}
        )
    return {**schema, "properties": properties}


def parameter_schemas(functions: Any, source: str) -> list[Schema]:
    """Returns the argument types of the functions, in order, each an object.

    Args:
        source: The input of the functions, for error messages.

    Raises:
        InputError: A016 if the functions are invalid or their names are not distinct.
    """
    if not isinstance(functions, list | tuple):
        raise _functions_error(source, "it is not a list")
    names: set[str] = set()
    parts = _SchemaConverter()
    schemas = []
    for number, function in enumerate(functions):
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise _functions_error(source, f"number {number + 1} has no name")
        if name in names:
            raise _functions_error(source, f"two functions are called {name!r}")
        names.add(name)
        parameters = function.get("parameters")
        schemas.append(parts.convert_arguments(parameters if isinstance(parameters, Mapping) else {}))
    return schemas if parts.count <= MAX_TYPES else [{"type": "object"} for _ in schemas]


def _call_schemas(functions: Any, source: str) -> list[Schema]:
    """Returns one type per function: `{"name": its name, "arguments": its argument type}`."""
    if isinstance(functions, list | tuple) and len(functions) > MAX_FUNCTIONS:
        raise _functions_error(source, f"it has {len(functions):,} functions; at most {MAX_FUNCTIONS}")
    types = parameter_schemas(functions, source)
    return [_call_schema(str(function["name"]), kind) for function, kind in zip(functions, types, strict=True)]


def _call_schema(name: str, arguments: Schema) -> Schema:
    properties = {"name": {"const": name}, "arguments": arguments}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


class _SchemaConverter:
    """Converts declared types to JSON Schema and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def convert_arguments(self, parameters: Mapping[str, Any]) -> Schema:
        """Converts the arguments of a function to a closed object."""
        return (
            self.convert_record(parameters, 0)
            if parameters.get("properties")
            else {"type": "object", "maxProperties": 0}
        )

    def convert(self, declared: Any, depth: int) -> Schema:
        """Converts a declared type; any value if the type is unknown."""
        self.count += 1
        if not isinstance(declared, Mapping) or depth > MAX_DEPTH or self.count > MAX_TYPES:
            return {}
        if choices := _enum_values(declared):
            return {"enum": choices}
        if isinstance(options := declared.get("anyOf", declared.get("oneOf")), list | tuple) and options:
            return {"anyOf": [self.convert(option, depth + 1) for option in options]}
        names = declared.get("type")
        if isinstance(names, list | tuple) and names:
            return {"anyOf": [self.convert({**declared, "type": name}, depth + 1) for name in names]}
        kind = _TYPE_NAMES.get(names) if isinstance(names, str) else None
        return {} if kind is None else self.convert_plain(kind, declared, depth)

    def convert_plain(self, kind: str, declared: Mapping[str, Any], depth: int) -> Schema:
        """Converts a declaration of one type that is not a union."""
        if kind == "object" and isinstance(declared.get("properties"), Mapping):
            return self.convert_record(declared, depth)
        bounds = {key: declared[key] for key in _BOUND_KEYS.get(kind, ()) if _is_bound(key, declared.get(key))}
        extra: Schema = {}
        if kind == "array" and isinstance(declared.get("items"), Mapping):
            extra = {"items": self.convert(declared["items"], depth + 1)}
        elif kind == "object" and isinstance(declared.get("additionalProperties"), Mapping):
            extra = {"additionalProperties": self.convert(declared["additionalProperties"], depth + 1)}
        return {"type": kind, **bounds, **extra}

    def convert_record(self, declared: Mapping[str, Any], depth: int) -> Schema:
        """Converts a record: its fields in order, no others."""
        properties = declared["properties"] if isinstance(declared["properties"], Mapping) else {}
        fields = {str(name): self.convert(field_schema, depth + 1) for name, field_schema in properties.items()}
        required_names = declared.get("required")
        required = [name for name in fields if isinstance(required_names, list | tuple) and name in required_names]
        return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _enum_values(declaration: Mapping[str, Any]) -> list[Any]:
    """Returns the listed values of an argument, if any."""
    enum_values = declaration.get("enum")
    if not isinstance(enum_values, list | tuple) or not enum_values:
        return []
    return [value for value in enum_values if value is None or isinstance(value, str | int | float | bool)]


def _is_bound(key: str, value: Any) -> bool:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return (is_integer and value >= 0) if key in _BOUND_KEYS["array"] else is_integer or isinstance(value, float)


def _unknown_field(
    reason: str, name: str, known_fields: Mapping[str, Any], location: SourceLocation | None
) -> InputError:
    near = closest_match(name, list(known_fields))
    return InputError(
        "A015",
        f"calls: {reason}",
        location=location,
        hint=f"did you mean {near!r}?" if near else f"known here: {', '.join(known_fields) or 'none'}",
    )


def _functions_error(source: str, reason: str) -> InputError:
    hint = (
        '[{"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {...}, "required":'
        " [...]}}]"
    )
    return InputError("A016", f"the input {source!r} does not list functions that can be called: {reason}", hint=hint)
