"""Placeholders: objects that represent unknown values while a workflow function is traced.

A placeholder has its CEL, its type (JSON Schema) and its reads. Its own names start with `_`, so that every field of a
value can be written as `value.field`. Operations that need the value itself, such as its truth or its length, are
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from typing_extensions import TypeVar

from orchestra.schema.json_schema import TYPE_NAMES, allowed_values, object_type
from orchestra.schema.types import Schema, bundle_definitions, field_type, item_type, resolve, union_members
from orchestra.workflows.expressions.parser import KEYWORDS, escape_references, to_cel_literal
from orchestra.workflows.expressions.type_checker import TEXT_FORM_REASON, constant_format, misread_operand, value_kinds
from orchestra.workflows.python import errors
from orchestra.workflows.python.pending import (
    ATOM_PRECEDENCE,
    PLACEHOLDER_MARK,
    PRECEDENCE,
    UNKNOWN_TYPE,
    PendingExpression,
    build_expression,
    combine,
    display_text,
    infer_type,
    plain_json,
    to_cel,
    to_float,
    to_template,
)
from orchestra.workflows.python.printer import python_type
from orchestra.workflows.python.scopes import (
    TRACED_ONCE_REASON,
    NodePresence,
    TracedNode,
    current_scope,
    require_scope,
    trace_error,
)

_NUMBERS = frozenset({"int", "float"})
_TOOL = "do it in a @tool(effect='pure')"

R = TypeVar("R", covariant=True)


class Placeholder(errors.UnknownValue):
    """Represents a value that is known when the workflow runs."""

    __slots__ = ("_expression",)
    _expression: PendingExpression

    def __init__(self, expression: PendingExpression) -> None:
        object.__setattr__(self, "_expression", expression)

    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]  # for `isinstance`; must be in the class body
        expression = self._expression
        raise trace_error(
            "W005",
            f"{display_text(expression)} ({python_type(expression.schema)}) has no value yet",
            hint="let an agent or a tool return a Literal, and compare that: kind.label == '...'",
            why=f"{TRACED_ONCE_REASON}; isinstance() cannot wait for one",
        )

    def __repr__(self) -> str:
        return f"<{display_text(self._expression)}: {python_type(self._expression.schema)}{PLACEHOLDER_MARK}"

    def __str__(self) -> str:
        if current_scope() is not None:
            kinds = value_kinds(self._expression.schema)
            hint = (
                "{x}, without str()"
                if kinds == {"str"}
                else "as_text({x})"
                if kinds <= {"str", "int", "float", "bool"}
                else _TOOL
            )
            _refuse(self, "str()", f"{hint}; repr({{x}}) shows its expression")
        return repr(self)  # outside of tracing the text can only end up in a message

    def __getattr__(self, name: str) -> Placeholder:
        if name.startswith("_"):
            raise AttributeError(name)
        return Placeholder(_select_field(self._expression, name))

    def __getitem__(self, key: Any) -> Placeholder:
        return Placeholder(_select_index(self._expression, key))

    def __iter__(self) -> Iterator[Placeholder]:
        shape = resolve(self._expression.schema)
        if "prefixItems" in shape:  # `a, b = pair`: the length is part of the type
            return iter([self[index] for index in range(len(shape["prefixItems"]))])
        text = display_text(self._expression)
        raise trace_error(
            "W004",
            f"{text} ({python_type(shape)}) has no length yet: it cannot be looped over or unpacked",
            hint=errors.rewrite_hint(errors.user_location()) or f"map_(lambda item: ..., {text})",
            why=f"{TRACED_ONCE_REASON}; how many elements there will be is not known either",
        )

    def __bool__(self) -> bool:
        expression, text = self._expression, display_text(self._expression)
        kinds = value_kinds(expression.schema) - {"any"}
        suggestion = (
            f"has_value({text})"
            if "null" in kinds
            else f"length({text}) > 0"
            if kinds <= {"list", "str", "map"}
            else ""
        )
        if kinds <= {"bool"} or not suggestion:
            hint = errors.rewrite_hint(errors.user_location()) or f"first_of(when({text}, lambda: ...), otherwise=...)"
        else:
            hint = f"state the condition: first_of(when({suggestion}, lambda: ...), otherwise=...)"
        raise trace_error(
            "W005",
            f"{text} has no truth value yet",
            hint=hint,
            why=f"{TRACED_ONCE_REASON}; Python's if, and, or, not, in and a < b < c cannot wait for one",
        )

    def __neg__(self) -> Placeholder:
        return Placeholder(binary_operation("-", 0, self))

    def __invert__(self) -> NoReturn:
        _refuse(self, "~", "not_({x})")


class Maybe(Generic[R]):
    """A value that may be skipped or withheld. `first_of` takes it, `values` takes a list of them, and `require`
    accepts that it is missing.
    """

    def __init__(self, expression: PendingExpression, *, is_list: bool = False) -> None:
        self._expression, self._is_list = expression, is_list

    def __repr__(self) -> str:
        return f"<{display_text(self._expression)}: {self._type()}{PLACEHOLDER_MARK}"

    def _type(self) -> str:
        inner = python_type(self._expression.schema)
        return f"list[Maybe[{inner[5:-1]}]]" if self._is_list else f"Maybe[{inner}]"

    if not TYPE_CHECKING:  # type checkers see no attributes, so that they report every use

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("__"):
                raise AttributeError(name)
            raise missing_error(self, f".{name}")

        def __getitem__(self, key: object) -> NoReturn:
            raise missing_error(self, "[...]")

        def __iter__(self) -> NoReturn:
            raise missing_error(self)

        def __len__(self) -> NoReturn:
            raise missing_error(self)

        def __bool__(self) -> NoReturn:
            raise missing_error(self)

        def __format__(self, spec: str) -> NoReturn:
            raise missing_error(self)

        def __str__(self) -> NoReturn:
            raise missing_error(self)


def missing_error(maybe: Maybe[Any], use: str = "") -> Exception:
    """Returns the error of using a value that may be missing."""
    expression, text = maybe._expression, display_text(maybe._expression)
    if maybe._is_list:
        return trace_error(
            "W009",
            f"{text} is {maybe._type()}: some elements may be skipped or withheld",
            hint=f"values({text}) for the list of those that are there",
        )
    state = (
        "withheld"
        if expression.node is not None and "checks" in expression.node.fields and not expression.node.own_guard_count
        else "skipped"
    )
    hint = f"first_of({text}, otherwise=...){use}" if use else f"first_of({text}, otherwise=...)"
    return trace_error(
        "W009",
        f"{text} may be {state}, and here a value is needed",
        hint=f"{hint}; or require({text}), and what uses it is {state} with it",
    )


def _refuse(placeholder: Any, action: str, hint: str) -> NoReturn:
    expression = placeholder._expression
    text = display_text(expression)
    raise trace_error(
        "W005",
        f"{text} ({python_type(expression.schema)}) has no value yet",
        hint=errors.rewrite_hint(errors.user_location()) or hint.format(x=text),
        why=f"{TRACED_ONCE_REASON}; Python's {action} cannot wait for one",
    )


_UNSUPPORTED_METHODS: tuple[tuple[str, str, str], ...] = (
    ("format", "f-string", "'text ' + {x}; or give the agent another input, and name it in its prompt"),
    ("len", "len()", "length({x})"),
    ("contains", "in", "contains({x}, item)"),
    ("await", "await", "leave the await out: in a workflow a call adds a node, and does not run"),
    ("int float index complex round trunc floor ceil abs pos", "conversion", "do it in a @tool(effect='pure')"),
    ("floordiv rfloordiv", "//", "do it in a @tool(effect='pure')"),
    ("mod rmod", "%", "do it in a @tool(effect='pure'); a text is put together with +"),
    ("pow rpow", "**", "do it in a @tool(effect='pure')"),
    ("divmod rdivmod matmul rmatmul lshift rshift xor rxor", "operator", "do it in a @tool(effect='pure')"),
    ("enter aenter aiter next reversed reduce_ex", "protocol", "pass {x} to an agent, a tool or a workflow"),
    ("hash", "dict and set", "a list; or do it in a @tool(effect='pure')"),
    ("call", "call", "only agents, tools and workflows can be called"),
)
"""Special methods that need the value: their names, a description, and the code to write instead."""


def _make_refusal(action: str, hint: str) -> Callable[..., NoReturn]:
    def refuse(self: Placeholder, *rest: Any) -> NoReturn:
        _refuse(self, action, hint)

    return refuse


def _refuse_mutation(self: Placeholder, *rest: Any) -> NoReturn:
    raise trace_error(
        "W005",
        f"{display_text(self._expression)} cannot be changed: values never change",
        hint="bind a new name, or make a new value with build(Model, field=...)",
    )


def _make_operator(op: str, swapped: bool) -> Callable[[Any, Any], Placeholder]:
    return lambda self, other: Placeholder(
        binary_operation(op, other, self) if swapped else binary_operation(op, self, other)
    )


for _names, _what, _hint in _UNSUPPORTED_METHODS:
    for _name in _names.split():
        setattr(Placeholder, f"__{_name}__", _make_refusal(_what, _hint))
for _name in ["setattr", "setitem", "delattr", "delitem"]:
    setattr(Placeholder, f"__{_name}__", _refuse_mutation)
for _name, _op in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    setattr(Placeholder, f"__{_name}__", _make_operator(_op, swapped=False))
for _name, _op in {"and": "&&", "or": "||", "add": "+", "sub": "-", "mul": "*", "truediv": "/"}.items():
    setattr(Placeholder, f"__{_name}__", _make_operator(_op, swapped=False))
    setattr(Placeholder, f"__r{_name}__", _make_operator(_op, swapped=True))


def _select_field(expression: PendingExpression, name: str) -> PendingExpression:
    """Returns `.name` of a value. Raises `InputError` W002 if its type has no such field."""
    mark_used(expression)
    field_schema = UNKNOWN_TYPE if expression.is_unknown else field_type(expression.schema, name)
    if isinstance(field_schema, str):
        raise _no_field_error(expression, name, field_schema)
    base = expression.bracketed(ATOM_PRECEDENCE)
    plain = name.isascii() and name.isidentifier() and name not in KEYWORDS
    cel = f"{base}.{name}" if plain else f"{base}[{to_cel_literal(name)}]"
    return replace(
        expression, cel=cel, precedence=ATOM_PRECEDENCE, schema=field_schema, node=None, parts=(), template=None
    )


def _no_field_error(expression: PendingExpression, name: str, reason: str) -> Exception:
    text, kinds = display_text(expression), value_kinds(expression.schema)
    python = {"str": str, "list": list, "int": int, "float": float, "map": dict}
    if len(kinds) == 1 and hasattr(python.get(next(iter(kinds)), object), name):
        hint = {"append": f"{text} + [item]", "get": f"{text}['key']"}.get(
            name, f"do it in a @tool(effect='pure') that takes {text}"
        )
        return trace_error(
            "W002",
            f"{text}.{name}() cannot run: {text} is a {python_type(expression.schema)} that is not known yet",
            hint=hint,
        )
    if reason.startswith("may be null"):
        titles = [part["title"] for part in union_members(expression.schema) if part.get("title", "").isidentifier()]
        call_text = f"{titles[0]}(...)" if len(titles) == 1 else "..."
        return trace_error(
            "W002",
            f"{text} may be None ({python_type(expression.schema)}), and None has no field {name!r}",
            hint=f"or_else({text}, {call_text}).{name} gives a default for None",
        )
    return trace_error("W002", f"{text}: {reason}")


def _select_index(expression: PendingExpression, key: Any) -> PendingExpression:
    """Returns `[key]` of a list or a mapping. Raises `InputError` W003."""
    text = display_text(expression)
    if type(key) is slice:
        hint = f"filter_(lambda item: ..., {text}), or do it in a @tool(effect='pure')"
        raise trace_error("W003", f"{text} cannot be sliced: its length is not known yet", hint=hint)
    mark_used(expression)
    kinds = value_kinds(expression.schema)
    base = expression.bracketed(ATOM_PRECEDENCE)
    if type(key) is int and kinds == {"list"}:
        item_schema = item_type(expression.schema, key if key >= 0 else None)
        if isinstance(item_schema, str):
            raise trace_error("W003", f"{text}: {item_schema}")
        at = str(key) if key >= 0 else f"size({expression.cel}) - {-key}"
        return replace(
            expression,
            cel=f"{base}[{at}]",
            precedence=ATOM_PRECEDENCE,
            schema=item_schema,
            node=None,
            parts=(),
            template=None,
        )
    if type(key) is str and kinds == {"map"}:
        return _select_field(expression, key)
    if (type(key) is Placeholder and kinds == {"list"}) or (
        kinds == {"map"} and not resolve(expression.schema).get("properties")
    ):
        return build_expression("{0}[{1}]", ATOM_PRECEDENCE, expression, lift(key))
    if expression.is_unknown:
        return replace(expression, cel=f"{base}[{lift(key).cel}]", precedence=ATOM_PRECEDENCE, node=None)
    if kinds == {"map"}:
        raise trace_error(
            "W003", f"{text} is {python_type(expression.schema)}: it has fields, not keys", hint=f"write {text}.{key}"
        )
    if "null" in kinds:
        raise trace_error(
            "W003",
            f"{text} may be None ({python_type(expression.schema)})",
            hint=f"or_else({text}, ...) gives a default for None",
        )
    raise trace_error("W003", f"{text} is {python_type(expression.schema)}: it has no [{key!r}]")


def mark_used(expression: PendingExpression) -> None:
    """Marks the reads of an expression as used here. Raises `InputError` W006 or W009 if they cannot be."""
    _check_accessible(expression)
    for variable in expression.reads:
        if isinstance(variable, TracedNode):
            variable.is_used = True


def _check_accessible(expression: PendingExpression) -> None:
    """Refuses an expression of another body, or of a node that may be missing here."""
    scope = current_scope()
    if scope is None or all(expression.scope is not trace_scope for trace_scope in scope.chain()):
        raise trace_error(
            "W006",
            f"{display_text(expression)} belongs to another map_ body or workflow",
            hint="return it from the body, and use what map_ gives",
            why="a body runs once for each element, so there is no single value outside of it",
        )
    node_guards = scope.active_guards
    for node in expression.needs:
        if any(
            guard is not (node_guards[index] if index < len(node_guards) else None)
            for index, guard in enumerate(node.guards)
        ):
            raise missing_error(Maybe(replace(expression, node=node)))
        if node.presence is NodePresence.OPTIONAL and scope.return_location is None:
            raise trace_error(
                "W009",
                f"{display_text(expression)} is missing where all its options are, and here a value is needed",
                hint=f"{node.name} = first_of(..., otherwise=...)",
            )


def peek(value: Any) -> PendingExpression:
    """Returns a value as an expression without marking it as used. The value may be missing."""
    if type(value) is Maybe:
        return value._expression
    if type(value) is Placeholder:
        _check_accessible(value._expression)
        return value._expression
    return lift(value)


def rename_to_variable(expression: PendingExpression) -> Placeholder:
    """Returns a node's value, and names the node after the present call's variable if it has no such name and no
    references.
    """
    if (node := expression.node) is not None and expression.cel in (node.name, f"{node.name}.values"):
        rest = expression.cel[len(node.name) :]
        expression.scope.name_after_variable(node)
        expression = replace(expression, cel=node.name + rest)
    return Placeholder(expression)


def lift(value: Any) -> PendingExpression:
    """Returns a Python value or a placeholder as an expression. Raises `InputError` W005, W006, W007 or W009."""
    if type(value) is Placeholder:
        mark_used(value._expression)
        return value._expression
    if type(value) is Maybe:
        raise missing_error(value)
    return _lift_constant(value) if not contains_placeholder(value) else _lift_collection(value)


def contains_placeholder(value: Any) -> bool:
    """Whether a Python value contains a placeholder."""
    if type(value) in (Placeholder, Maybe):
        return True
    if isinstance(value, Mapping):
        return any(contains_placeholder(inner) for pair in value.items() for inner in pair)
    return isinstance(value, list | tuple | set | frozenset) and any(contains_placeholder(inner) for inner in value)


def _lift_constant(value: Any) -> PendingExpression:
    plain = plain_json(value)
    schema: Schema = (
        {"const": plain} if isinstance(plain, list | dict) else {"const": plain, "type": TYPE_NAMES[type(plain)]}
    )
    text = to_cel(plain)
    if format_name := constant_format(value):
        schema["format"] = format_name
    return PendingExpression(
        text, 7 if text.startswith("-") else ATOM_PRECEDENCE, schema, require_scope("an expression")
    )


def _lift_collection(value: Any) -> PendingExpression:
    """Returns a list or mapping that contains placeholders."""
    if isinstance(value, Mapping):
        entries = {str(key): lift(inner) for key, inner in value.items()}
        schema = bundle_definitions(object_type({key: entry.schema for key, entry in entries.items()}))
        cel = "{" + ", ".join(f"{to_cel_literal(key)}: {entry.cel}" for key, entry in entries.items()) + "}"
        templates = {key: template_with_type(inner)[0] for key, inner in value.items()}
        return combine(cel, ATOM_PRECEDENCE, schema, [*entries.values()], template=templates)
    if isinstance(value, set | frozenset):
        raise trace_error("W007", "a set of values that are not known yet has no order", hint="pass a list")
    items = [lift(inner) for inner in value]
    array_schema = {
        "type": "array",
        "prefixItems": [item.schema for item in items],
        "minItems": len(items),
        "maxItems": len(items),
    }
    cel = "[" + ", ".join(item.cel for item in items) + "]"
    return combine(
        cel,
        ATOM_PRECEDENCE,
        bundle_definitions(array_schema),
        items,
        template=[template_with_type(inner)[0] for inner in value],
    )


def binary_operation(op: str, left: Any, right: Any) -> PendingExpression:
    """Returns `left op right`. Raises `InputError` W008 if it is undefined or can never hold."""
    a, b = lift(left), lift(right)
    ka, kb = value_kinds(a.schema), value_kinds(b.schema)
    unknown = a.is_unknown or b.is_unknown
    if not unknown:
        _check_defined(op, a, b, ka, kb)
        if op in ("==", "!="):
            _check_possible(a, b)
            _check_possible(b, a)
    if ka | kb <= _NUMBERS and (op == "/" or ka != kb) and not unknown:
        a, b = to_float(a, ka), to_float(b, kb)
    precedence = PRECEDENCE[op]
    left_text = a.bracketed(precedence + 1 if precedence == 4 else precedence)
    right_text = b.bracketed(precedence if op in ("&&", "||") else precedence + 1)
    cel = f"{left_text} {op} {right_text}"
    if op == "+" and ka == kb == {"str"} and not unknown:
        # As a template it is a text with references of any length; as an expression it is checked where it is used.
        return replace(
            combine(cel, precedence, {"type": "string"}, [a, b]), parts=(*_text_parts(a, left), *_text_parts(b, right))
        )
    return combine(cel, precedence, infer_type(cel, (a, b)), [a, b])


def _text_parts(expression: PendingExpression, value: Any) -> tuple[str | PendingExpression, ...]:
    if expression.parts:
        return expression.parts
    return (expression,) if type(value) is Placeholder else (value,)


def _check_defined(op: str, a: PendingExpression, b: PendingExpression, ka: frozenset[str], kb: frozenset[str]) -> None:
    kinds = ka | kb
    if misreading := misread_operand(op, a.schema, b.schema):
        hint = "do it in a @tool(effect='pure')"
        raise trace_error(
            "W008",
            f"{display_text(a)} {op} {display_text(b)} would take {misreading} as a text",
            hint=hint,
            why=TEXT_FORM_REASON,
        )
    if op in ("==", "!="):
        fine = bool(ka & kb) or kinds <= _NUMBERS or "any" in kinds or bool(ka & _NUMBERS and kb & _NUMBERS)
    elif op in ("&&", "||"):
        fine = kinds == {"bool"}
    else:
        texts = op in ("+", "<", "<=", ">", ">=") and kinds == {"str"}
        fine = kinds <= _NUMBERS or texts or (op == "+" and kinds == {"list"})
    if fine:
        return
    python = {"&&": "&", "||": "|"}.get(op, op)
    first, second = display_text(a), display_text(b)
    message = f"{first} {python} {second} is not defined: {_operand_type(a)} {python} {_operand_type(b)}"
    if "null" in kinds and op not in ("==", "!="):
        raise trace_error(
            "W008", message, hint=f"or_else({first if 'null' in ka else second}, ...) gives a default for None"
        )
    if op == "+" and "str" in kinds:
        other_text = second if ka == {"str"} else first
        raise trace_error("W008", message, hint=f"as_text({other_text}) makes a text of it")
    hint = "and, or of conditions: all_of(...), any_of(...); compare values first" if op in ("&&", "||") else ""
    raise trace_error("W008", message, hint=hint)


def _operand_type(expression: PendingExpression) -> str:
    """Returns the type of an operand; for a constant, without its value."""
    return python_type(
        {"type": expression.schema["type"]}
        if "const" in expression.schema and "type" in expression.schema
        else expression.schema
    )


def _check_possible(expression: PendingExpression, other_expression: PendingExpression) -> None:
    """Refuses a comparison with a constant that the type excludes."""
    if "const" not in other_expression.schema or other_expression.reads or not expression.reads:
        return
    value, text = other_expression.schema["const"], display_text(expression)
    if value is None:
        if not value_kinds(expression.schema) & {"null", "any"}:
            raise trace_error(
                "W008", f"{text} is {python_type(expression.schema)}: it is never None", hint="leave the comparison out"
            )
        return
    if (allowed_constants := allowed_values(expression.schema, value)) is not None:
        hint = f"did you mean {allowed_constants.suggestion!r}?" if allowed_constants.suggestion else ""
        raise trace_error("W008", f"{text} is {python_type(expression.schema)}: it is never {value!r}", hint=hint)


def template_with_type(value: Any) -> tuple[Any, Schema]:
    """Returns a value as a template, and its type. Raises `InputError` W005, W006, W007 or W009."""
    if type(value) is Placeholder:
        mark_used(value._expression)
        return to_template(value._expression), value._expression.schema
    if type(value) is Maybe:
        raise missing_error(value)
    if contains_placeholder(value):
        expression = _lift_collection(value)
        return expression.template, expression.schema
    plain = plain_json(value)
    return escape_references(plain), {"const": plain}
