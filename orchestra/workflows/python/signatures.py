"""Signatures: the types of a Python function, or of a pair of models, as JSON Schemas."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestra.agents.card_types import project_models
from orchestra.agents.contract import Contract
from orchestra.core.errors import InputError
from orchestra.schema.assignability import assignability_error
from orchestra.schema.decoding import decode_value
from orchestra.schema.fields import schema_has_format
from orchestra.schema.json_schema import object_type
from orchestra.schema.types import Schema, bundle_definitions, format_type, parse_type, schema_of, subschema
from orchestra.workflows.expressions.parser import KEYWORDS, escape_references
from orchestra.workflows.model import Graph, Input
from orchestra.workflows.python import errors
from orchestra.workflows.python.errors import CodeLocation

ReadValue: TypeAlias = Callable[[Any], Any]
NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SUPPORTED_TYPES = "str, int, float, bool, list[T], dict[str, T], Literal[...], T | None, and pydantic models"


@dataclass(frozen=True, slots=True)
class KeywordParameters:
    """The names of a signature's parameters, and the required ones."""

    names: tuple[str, ...]
    required: frozenset[str]
    allowed: frozenset[str]

    def accepts(self, given: Mapping[str, Any]) -> bool:
        """Whether a call with these names is valid."""
        return self.required <= given.keys() <= self.allowed


@dataclass(frozen=True)
class Signature:
    """The inputs by name, and the output. `returns` is the Python type of the output; None if unknown."""

    parameters: inspect.Signature
    input: Schema
    """An object schema."""
    output: Schema
    types: Mapping[str, Any] = field(default_factory=dict)
    returns: Any = Any
    key_type: Any = None
    """The Python type of the parameter that receives an idempotency key; None if there is none."""

    @cached_property
    def fields(self) -> Mapping[str, Schema]:
        """The types of the inputs by name."""
        return {name: subschema(self.input, part) for name, part in self.input.get("properties", {}).items()}

    @cached_property
    def keywords(self) -> KeywordParameters | None:
        """The keyword parameters; None if any name is accepted."""
        parameters = self.parameters.parameters
        if any(
            parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            for parameter in parameters.values()
        ):
            return None
        required_names = frozenset(
            name for name, parameter in parameters.items() if parameter.default is parameter.empty
        )
        return KeywordParameters(tuple(parameters), required_names, frozenset(parameters))

    @cached_property
    def _output(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.returns)

    def read(self, value: Any) -> Any:
        """Converts a JSON value of the output to its Python type. Raises `InputError` W020 for a value of another
        type.
        """
        if self.returns is Any:
            return value
        try:
            return decode_value(self._output, value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = ".".join(str(step) for step in first["loc"])
            raise InputError(
                "W020", f"the output is not a {self.returns}: {path + ': ' if path else ''}{first['msg']}"
            ) from error


def first_paragraph(function: Callable[..., Any]) -> str:
    """Returns the first paragraph of a function's docstring on one line."""
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def signature_of_function(function: Callable[..., Any], kind: str, *, key: str = "") -> Signature:
    """Returns the signature of a decorated function. Its annotations are resolved, including local types.

    `key` names a parameter that is not an input. Raises `InputError` W017 if that is impossible.
    """
    name = getattr(function, "__name__", str(function))
    location = CodeLocation(function.__code__, -1) if hasattr(function, "__code__") else None
    if location is None:
        raise errors.error_at(
            "W017",
            f"@{kind} is a decorator of functions, and {name} is not one",
            hint="def name(question: str) -> str: ...",
        )
    hints = _hints(function, name, location)
    parameters = inspect.signature(function)
    has_key = key and key in parameters.parameters
    if has_key:
        parameters = parameters.replace(
            parameters=[parameter for name, parameter in parameters.parameters.items() if name != key]
        )
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in parameters.parameters.values():
        _check_parameter(parameter, name, location)
        if parameter.name not in hints:
            raise errors.error_at(
                "W017",
                f"{name}: the input {parameter.name!r} has no type",
                hint=f"{parameter.name}: str",
                location=location,
            )
        properties[parameter.name] = _type_schema(
            hints[parameter.name], f"{name}: the input {parameter.name!r}", "validation", location
        )
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            properties[parameter.name] = {
                **properties[parameter.name],
                "default": _default_value(parameter, hints[parameter.name], name, location),
            }
    if "return" not in hints:
        raise errors.error_at(
            "W017", f"{name} has no return type", hint=f"def {name}(...) -> str: ...", location=location
        )
    output = _type_schema(hints["return"], f"{name}: the output", "serialization", location)
    inputs = bundle_definitions(object_type(properties, required))
    types = {name: hints[name] for name in parameters.parameters}
    return Signature(parameters, inputs, output, types, hints["return"], hints.get(key) if has_key else None)


def signature_of_models(name: str, model: Any, output: Any) -> Signature:
    """Returns the signature of a card with types of its input and output. Raises `InputError` W017."""
    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        model_name = getattr(model, "__name__", repr(model))
        raise errors.error_at(
            "W017",
            f"agent({name!r}, ...): the inputs are a pydantic model, and {model_name} is none",
            hint="class ReaderInput(BaseModel): question: str",
        )
    return Signature(
        inspect.signature(model),
        _type_schema(model, f"agent({name!r}): the inputs", "validation", None),
        _type_schema(output, f"agent({name!r}): the output", "serialization", None),
        {field.alias or key: field.annotation for key, field in model.model_fields.items()},
        output,
    )


def _hints(function: Callable[..., Any], name: str, location: CodeLocation) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(function, localns=errors.user_locals(), include_extras=True)
    except NameError as error:
        hint = "define or import the type above the function, and outside of `if TYPE_CHECKING:`"
        raise errors.error_at(
            "W017", f"{name}: there is no type {error.name!r} here", hint=hint, location=location
        ) from error
    except (TypeError, SyntaxError, AttributeError) as error:
        raise errors.error_at(
            "W017", f"{name}: an annotation is not a type: {error}", hint=_SUPPORTED_TYPES, location=location
        ) from error
    if inspect.isfunction(function) and all(
        isinstance(annotation, str) for annotation in function.__annotations__.values()
    ):
        # Resolved once, here, where local types are visible. Callers of the function need them too.
        function.__annotations__ = dict(hints)
    return hints


def _check_parameter(parameter: inspect.Parameter, name: str, location: CodeLocation) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        stars = (
            "*"
            if parameter.kind is parameter.VAR_POSITIONAL
            else "**"
            if parameter.kind is parameter.VAR_KEYWORD
            else ""
        )
        raise errors.error_at(
            "W017",
            f"{name}: {stars}{parameter.name} cannot be an input, for inputs have names",
            hint="one parameter an input; many of a kind are a list",
            location=location,
        )
    if parameter.name.startswith("_"):
        hint = f"call it {parameter.name.strip('_') or 'value'}"
        raise errors.error_at(
            "W017",
            f"{name}: {parameter.name!r} cannot be an input: its name begins with a letter",
            hint=hint,
            location=location,
        )


def _type_schema(kind: Any, role: str, mode: Any, location: CodeLocation | None) -> Schema:
    try:
        return schema_of(type(None) if kind is None else kind, mode)
    except InputError as error:
        raise errors.error_at(
            "W017", f"{role}: {error.message}", hint=f"types are {_SUPPORTED_TYPES}", location=location
        ) from error


def _default_value(parameter: inspect.Parameter, kind: Any, name: str, location: CodeLocation) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.dump_python(adapter.validate_python(parameter.default), mode="json", by_alias=True)
    except ValueError as error:
        message = f"{name}: the default of {parameter.name!r} is not of its type: {parameter.default!r}"
        raise errors.error_at("W017", message, location=location) from error


def signature_of_contract(contract: Contract) -> Signature:
    """Returns the signature of a contract. Its values stay JSON."""
    required = contract.input.get("required", [])
    fields = sorted(contract.input.get("properties", {}), key=lambda name: name not in required)
    return Signature(_keyword_signature(fields, required), contract.input, contract.output)


def signature_of_graph(graph: Graph) -> Signature:
    """Returns the signature of a frozen workflow, as far as its types are built in. The compiler finds the others and
    the output.
    """
    known_models: dict[str, Schema] = project_models()
    properties: dict[str, Any] = {}
    for name, entry in graph.input.items():
        try:
            properties[name] = parse_type(entry.type, known_models)
        except InputError:
            properties[name] = {"title": entry.type}
    required = [name for name, entry in graph.input.items() if not entry.optional]
    inputs = bundle_definitions(object_type(properties, required))
    fields = sorted(graph.input, key=lambda name: name not in required)
    return Signature(_keyword_signature(fields, required), inputs, {"x-unknown": True})


def _keyword_signature(fields: list[str], required: list[str]) -> inspect.Signature:
    empty = inspect.Parameter.empty
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [inspect.Parameter(name, kind, default=empty if name in required else ...) for name in fields]
    )


def models_in(*schemas: Schema) -> dict[str, Schema]:
    """Returns the models in schemas, by name."""
    models: dict[str, Schema] = {}
    for schema in schemas:
        pending_schemas: list[Any] = [schema]
        defs = {"$defs": schema["$defs"]} if "$defs" in schema else {}
        while pending_schemas:
            annotation = pending_schemas.pop()
            if isinstance(annotation, Mapping):
                if "properties" in annotation and isinstance(annotation.get("title"), str):
                    models.setdefault(
                        annotation["title"],
                        subschema(defs, {key: value for key, value in annotation.items() if key != "$defs"}),
                    )
                pending_schemas += annotation.values()
            elif isinstance(annotation, list):
                pending_schemas += annotation
    return models


def workflow_inputs(
    function: Callable[..., Any], name: str, signature: Signature
) -> tuple[dict[str, Input], dict[str, Schema], Schema]:
    """Returns the inputs of a workflow function as the language writes them, the types declared for them, and their
    record.

    Raises `InputError` W018 for a name or a type that the language does not have.
    """
    location = CodeLocation(function.__code__, -1)
    all_models = {**project_models(), **models_in(signature.input)}
    required = signature.input["required"]
    inputs: dict[str, Input] = {}
    types: dict[str, Schema] = {}
    schemas: dict[str, Schema] = {}
    for key, part in signature.input["properties"].items():
        if not NAME_PATTERN.fullmatch(key) or key in KEYWORDS:
            hint = f"{key.lower()}_" if key.lower() in KEYWORDS else "lower case letters, digits and _, at most 64"
            raise errors.error_at(
                "W018", f"{name}: an input of a workflow cannot be called {key!r}", hint=hint, location=location
            )
        schema = subschema(signature.input, part)
        if schema_has_format(schema, "password"):
            message = f"{name}: the input {key!r} is a secret, and what a run is given is written down"
            raise errors.error_at(
                "W018", message, hint="let the tool that needs it read it from where it is kept", location=location
            )
        text, schemas[key] = declare_type(schema, key, all_models, types)
        description = str(part.get("description", ""))
        if key in required:
            inputs[key] = Input(type=text, description=description)
        else:
            inputs[key] = Input(
                type=text, default=escape_references(part.get("default")), optional=True, description=description
            )
    return inputs, types, bundle_definitions(object_type(schemas, required))


def declare_type(schema: Schema, key: str, known: Mapping[str, Schema], types: dict[str, Schema]) -> tuple[str, Schema]:
    """Returns the type of an input as the language writes it, and its schema. A type without a text form is added to
    `types` by name.
    """
    text = format_type(schema, full=True)
    try:
        if _is_equivalent(parsed_type := parse_type(text, known), schema):
            return text, parsed_type
    except InputError:
        pass  # a tuple, or any type
    class_name = "".join(part.capitalize() for part in key.split("_")) + "Input"
    while class_name in known or class_name in types:
        class_name += "_"
    body = {word: value for word, value in schema.items() if word not in ("default", "description")}
    types[class_name] = body if "type" in body or "anyOf" in body else {"anyOf": [body]}
    return class_name, types[class_name]


def _is_equivalent(first: Schema, second: Schema) -> bool:
    """Whether two types have the same values."""
    return assignability_error(first, second) is None and assignability_error(second, first) is None


def name_conflict_error(name: str, kind: str, location: CodeLocation | None) -> InputError:
    """Returns the error W021 of two steps with one name in the workflow function at `location`."""
    return errors.error_at(
        "W021",
        f"two different {kind}s are called {name!r}",
        hint=f"rename one: @tool(effect=..., name='another_{name}')" if kind == "tool" else "rename one",
        why="a workflow calls steps by name",
        location=location,
    )
