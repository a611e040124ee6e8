"""Python source that binds cards with static types, so that mypy and pyright check every call of an agent."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping, Sequence

from orchestra.agents.card import Card
from orchestra.agents.card_types import TYPE_NAME_HINT, invalid_type_name, project_models
from orchestra.core.errors import InputError
from orchestra.schema.types import parse_type

_TYPE_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*""")


def generate_source(cards: Sequence[Card]) -> str:
    """A module with a class for each agent's input and output, and the agent under its name.

    It names the digest of each card: a card that has changed since is to be bound again. Nothing of a card stands in it but names
    that are identifiers, types and constants, written anew. Raises `InputError` L105 for the name of a type that is none.
    """
    bodies = [_generate_agent(card) for card in cards]
    text = "\n".join(bodies)
    words = set(re.findall(r"\b[A-Z]\w*\b", text))
    models = [
        name
        for name in sorted(project_models())
        if name in words and not re.search(rf"^class {name}\(", text, re.MULTILINE)
    ]
    typing = sorted(name for name in ("Any", "Literal") if re.search(rf"\b{name}\b", text))
    fields = "BaseModel, ConfigDict, Field" if "Field(" in text else "BaseModel, ConfigDict"
    lines = [
        '"""Agents, bound by `orchestra agents bind`: do not edit, bind again."""',
        "",
        "from __future__ import annotations",
        "",
    ]
    if typing:
        lines += [f"from typing import {', '.join(typing)}", ""]
    lines += [f"from pydantic import {fields}", "", "from orchestra import agent"]
    if models:
        lines.append(f"from orchestra.schema.builtin_models import {', '.join(models)}")
    lines += [
        "",
        "",
        "class _Record(BaseModel):",
        '    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)',
        "",
        "",
    ]
    return "\n".join(lines) + "\n" + "\n\n\n".join(body.rstrip() for body in bodies) + "\n"


def _generate_agent(card: Card) -> str:
    prefix = "".join(part.capitalize() for part in card.name.split("_"))
    renamed = {name: f"{prefix}{name}" for name in card.types}
    classes = [_generate_type(renamed[name], body, renamed) for name, body in card.types.items()]
    inputs = {name: given if isinstance(given, str) else given.type for name, given in card.input.items()}
    defaults = {name: given.default for name, given in card.input.items() if not isinstance(given, str)}
    classes.append(_generate_model(f"{prefix}Input", inputs, renamed, f"What {card.name} takes.", defaults))
    output = f"{prefix}Output"
    if isinstance(card.output, Mapping):
        classes.append(_generate_model(output, card.output, renamed, f"What {card.name} gives."))
    else:
        output = _python_type(card.output, renamed)
    name = f"{card.name}_" if keyword.iskeyword(card.name) else card.name
    bound = f'{name} = agent("{card.name}", {prefix}Input, {output})  # {card.digest}'
    return "\n\n\n".join(classes) + "\n\n\n" + bound + "\n"


def _generate_type(name: str, body: Mapping[str, object], renamed: Mapping[str, str]) -> str:
    if not name.isidentifier():
        raise InputError("L105", invalid_type_name(name), hint=TYPE_NAME_HINT)
    if all(isinstance(text, str) for text in body.values()) and "type" not in body:
        return _generate_model(name, {key: str(text) for key, text in body.items()}, renamed)
    return f"{name} = dict[str, Any]" if body.get("type") == "object" else f"{name} = Any"


def _generate_model(
    name: str,
    fields: Mapping[str, str],
    renamed: Mapping[str, str],
    docstring: str = "",
    defaults: Mapping[str, object] | None = None,
) -> str:
    lines = [f"class {name}(_Record):"]
    if docstring:
        lines += [f'    """{docstring}"""', ""]
    given = {field: _default_arguments(value) for field, value in (defaults or {}).items()}
    lines += [
        _generate_field(field, _python_type(text, renamed), given.get(field, ())) for field, text in fields.items()
    ]
    return "\n".join(lines if fields or docstring else [*lines, "    pass"]).rstrip()


def _default_arguments(value: object) -> tuple[str, ...]:
    """The arguments of `Field` for a default. What is no constant is read as its type says: a record becomes one of its class."""
    return (repr(value),) if value is None or isinstance(value, str | int) else (repr(value), "validate_default=True")


def _generate_field(name: str, annotation: str, default: tuple[str, ...]) -> str:
    if (written := _attribute_name(name)) != name:
        return f"    {written}: {annotation} = {_field_call(*default, f'alias={json.dumps(name)}')}"
    if not default:
        return f"    {name}: {annotation}"
    return f"    {name}: {annotation} = {default[0] if len(default) == 1 else _field_call(*default)}"


def _attribute_name(name: str) -> str:
    """A field's name as a model of pydantic can have it: `from_`, `first_name_`."""
    plain = re.sub(r"\W", "_", name).lstrip("_")
    fits = name == plain and name.isidentifier() and not keyword.iskeyword(name) and name != "model_config"
    return name if fits else f"{plain}_" if plain.isidentifier() else f"field_{plain}_"


def _field_call(*arguments: str) -> str:
    return f"Field({', '.join(arguments)})"


def _python_type(text: str, renamed: Mapping[str, str]) -> str:
    """A type of the workflow language as Python writes it."""

    def word(match: re.Match[str]) -> str:
        found = match[0]
        if found[0] in "'\"":
            return repr(
                parse_type(f"Literal[{found}]", {})["enum"][0]
            )  # the language's own escapes, and line breaks within quotes
        return {"null": "None", "true": "True", "false": "False", **renamed}.get(found, found)

    return _TYPE_TOKEN.sub(word, text)
