"""Mutators for known formats: YAML files, prompts, JSON lines, SQLite files. Each uses a seeded `Random`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any

SCALARS = (
    "!!python/object/apply:os.system [id]",
    "!x y",
    "*a",
    "&a b",
    "<<",
    "${a.b}",
    "$${",
    "${",
    "${1/0}",
    "${input}",
    "${a.map(x, x)}",
    "${'a'.matches('(a+)+$')}",
    "${[1].map(x,[1].map(y,x+y))}",
    "${9223372036854775807 + 1}",
    '${"\\ud800"}',
    "${dyn(a)}",
    "{{ 7*7 }}",
    "{{ x.__class__ }}",
    "<|im_start|>system",
    "null",
    "~",
    ".inf",
    "-.NaN",
    "010",
    "0x1F",
    "9" * 30,
    "9" * 400,
    "1e400",
    "1_000",
    "yes",
    "2026-01-01",
    "'",
    '"',
    "[",
    "{",
    "]",
    "|",
    ">",
    "- ",
    ": ",
    "# ",
    "? ",
    "---",
    "...",
    "%YAML 1.1",
    "\x00",
    "\ufeff",
    "\u2028",
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "a" * 70,
    "x" * 70_000,
    "list[list[str]]",
    "Literal['\\x00']",
    "Literal['\\N{BELL}']",
    "dict[int, str]",
    "T | null",
    "certified",
    "true",
    "-1",
    "0",
    "10001",
)
BLOCKS = (
    "{$ref: 'http://127.0.0.1:1/s'}",
    "{$ref: 'file:///etc/passwd'}",
    "{$ref: '#'}",
    "{$ref: '#/$defs/A', $defs: {A: {$ref: '#/$defs/A'}}}",
    "{anyOf: [{$ref: '#'}, {$ref: '#'}]}",
    "{allOf: [{$ref: '#'}]}",
    "{type: string, pattern: '(a+)+$'}",
    "{type: string, pattern: '(?<=a)'}",
    "{type: string, pattern: '(\\w{300}){300}'}",
    "{type: object, properties: {x: 3}}",
    "{enum: []}",
    "{type: [string, 3]}",
    "{$dynamicRef: '#x'}",
    "{type: array, items: {type: object, properties: {a: {type: array}}}}",
    "{not: {}}",
    "{type: string, format: quote}",
    "{minimum: x}",
    "[" * 70 + "]" * 70,
    "{a: " * 40 + "1" + "}" * 40,
    "{? [a]: b}",
    "{a: 1, a: 2}",
    "{1: 2}",
    "{<<: {a: 1}}",
    "[]",
    "{}",
    "{a: &b [*b]}",
    "{nodes: {x: {tool: shout, with: {text: y}}}, output: '${x}'}",
    "{at_most: 3, until: '${true}', nodes: {}, output: 1}",
)
PROMPTS = (
    "{{ 'a' * 99999999 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ t.__class__.__mro__ }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{{ t|format(1) }}",
    "{{ t|indent(9999999) }}",
    "{% set x = t %}{% for i in range(60) %}{% set x = x ~ x %}{% endfor %}{{ x }}",
    "<!-- user -->\n",
    "<!-- system -->\n",
    "<!-- assistant -->\n",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "{% raw %}",
    "{{ (" + "(" * 300 + "t" + ")" * 300 + ") }}",
    "{{ range(1, 99999999)|list }}",
    "{{ nothing }}",
    "{{ dict(a=t) }}",
    "{{ namespace(a=t).a }}",
    "{{ debug() }}",
    "\x00",
    "\N{RIGHT-TO-LEFT OVERRIDE}",
    "{{ t|replace('', t * 9) }}",
    "{{ [t] * 9999999 }}",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 63,
    10**30,
    10**400,
    1e308,
    -0.0,
    "",
    "\x00",
    "\x1b[2J",
    "\u202e",
    "x" * 70_000,
    [],
    {},
    [[]],
    {"": 0},
    "${a}",
    "{{ a }}",
    "<|im_end|>",
    {"type": "run_finished"},
    {"$ref": "http://127.0.0.1:1/"},
    "a/b[3]#2",
    "/".join("a" * 900),
    "a" + "#1" * 900,
)

NAMES = ("type", "seq", "at", "node", "value", "outcome", "more", "kind", "attempt", "usage", "verdicts", "schema")


def yaml(chance: Random, text: str) -> str | bytes:
    """Returns a mutated YAML file: values, keys, blocks and lines changed, or a few bytes."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        lines = text.split("\n")
        at = chance.randrange(len(lines))
        match chance.randrange(9):
            case 0:  # another value
                text = _in_place(chance, text, r"(?<=: )[^\n{},\[\]]+", SCALARS)
            case 1:  # a whole block as the value
                text = _in_place(chance, text, r"(?<=: )[^\n]+", BLOCKS)
            case 2:  # another key
                text = _in_place(
                    chance,
                    text,
                    r"\b[a-z_]+(?=:)",
                    (*_words(text), "<<", "nodes", "loop", "call", "each", "when", "kind", "$ref"),
                )
            case 3:  # two keys swapped
                one, two = chance.choice(_words(text)), chance.choice(_words(text))
                text = text.replace(f"{one}:", "\x01").replace(f"{two}:", f"{one}:").replace("\x01", f"{two}:")
            case 4:  # a line repeated, removed or indented
                line = chance.choice(([lines[at]] * 2, [], ["  " + lines[at]], [lines[at].removeprefix("  ")]))
                text = "\n".join([*lines[:at], *line, *lines[at + 1 :]])
            case 5:  # another expression
                text = _in_place(chance, text, r"\$\{[^}]*\}", [f"${{{_expression(chance)}}}"])
            case 6:  # a repeated line, many times
                text = "\n".join([*lines[:at], *[lines[at]] * chance.choice((3, 50, 2_000)), *lines[at:]])[: 1 << 18]
            case 7:
                cut = chance.randrange(len(text) + 1)
                text = text[:cut] + chance.choice(SCALARS) + text[cut + chance.randrange(4) :]
            case _:
                return spoilt(chance, text.encode("utf-8", "replace"))
    return text


def prompt(chance: Random, text: str) -> str | bytes:
    """Returns a mutated prompt."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice(PROMPTS) + text[at + chance.randrange(6) :]
    return spoilt(chance, text.encode("utf-8", "replace")) if chance.random() < 0.1 else text


def line(chance: Random, text: str) -> str | bytes:
    """Returns a mutated line of JSON: values, keys and depth changed; it may be invalid JSON."""
    value = json.loads(text)
    for _ in range(chance.choice((1, 1, 2, 4))):
        holder = chance.choice(_holders(value))
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = chance.choice(keys) if keys else "more"
        match chance.randrange(5):
            case 0 if keys:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(NAMES)] = deepcopy(chance.choice(VALUES))
            case 2 if keys:
                holder[key] = _deep(chance, holder[key])
            case _ if keys:
                holder[key] = deepcopy(chance.choice(VALUES))
            case _:
                pass
    found = json.dumps(value)
    match chance.randrange(10):
        case 0:
            return spoilt(chance, found.encode())
        case 1:
            return found.replace(":", ': NaN, "type":', 1)
        case 2:
            return found.replace('"value":', '"value":' + "[" * 5_000, 1)
        case 3:
            return found[: chance.randrange(len(found) + 1)]
        case _:
            return found


def spoilt(chance: Random, data: bytes, times: int = 3) -> bytes:
    """Returns bytes with some of them changed, moved or removed."""
    found = bytearray(data)
    for _ in range(chance.randrange(1, times + 1)):
        if found:
            at = chance.randrange(len(found))
            match chance.randrange(4):
                case 0:
                    found[at] ^= 1 << chance.randrange(8)
                case 1:
                    found[at] = chance.randrange(256)
                case 2:
                    found[at : at + chance.randrange(64)] = chance.randbytes(chance.randrange(64))
                case _:
                    found = found[: chance.randrange(len(found) // 2, len(found) + 1)]
    return bytes(found)


def _expression(chance: Random, depth: int = 0) -> str:
    inner = [_expression(chance, depth + 1) for _ in range(2)] if depth < 4 else ["a", "1"]
    return chance.choice(
        (
            "input.text",
            "a",
            "a.b",
            "true",
            "null",
            "1",
            "-1",
            "1.5",
            "'x'",
            "'\\ud800'",
            "[]",
            "{}",
            "b'x'",
            "1u",
            "x",
            "r'\\d'",
            "a.?b",
            "a[?0]",
            f"({inner[0]})",
            f"{inner[0]} + {inner[1]}",
            f"{inner[0]} && {inner[1]}",
            f"{inner[0]} == {inner[1]}",
            f"!{inner[0]}",
            f"-{inner[0]}",
            f"{inner[0]} ? {inner[1]} : {inner[0]}",
            f"[{inner[0]}, {inner[1]}].map(x, {inner[1]})",
            f"{inner[0]}.filter(x, {inner[1]})",
            f"{inner[0]}[{inner[1]}]",
            f"size({inner[0]})",
            f"{inner[0]}.matches({inner[1]})",
            f"{{'k': {inner[0]}}}",
            f"has({inner[0]}.x)",
            f"{inner[0]} in {inner[1]}",
            f"string({inner[0]})",
            f"{inner[0]}.exists(x, {inner[1]})",
            f"type({inner[0]})",
            f"duration({inner[0]})",
        )
    )


def _in_place(chance: Random, text: str, pattern: str, instead: Sequence[str]) -> str:
    places = list(re.finditer(pattern, text))
    if not places:
        return text
    place = chance.choice(places)
    return text[: place.start()] + chance.choice(instead) + text[place.end() :]


def _words(text: str) -> list[str]:
    return re.findall(r"\b([a-z_]+):", text) or ["name"]


def _holders(value: Any) -> list[Any]:
    found, waiting = [], [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict | list):
            found.append(here)
            waiting += here.values() if isinstance(here, dict) else here
    return found


def _deep(chance: Random, value: Any) -> Any:
    for _ in range(chance.choice((3, 70, 300))):
        value = [value] if chance.random() < 0.5 else {"x": value}
    return value
