"""Hostile inputs of every kind, each with the error code that refuses it: workflows, types, cards, prompts, run inputs,
model outputs, event lines and cassettes. `every` adds the cases of other tests that have a code and a position.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestra.agents.card import Card
from orchestra.agents.output_parser import InvalidOutput, OutputParser
from orchestra.app.inputs import bind_arguments
from orchestra.cli.inputs import parse_json_object
from orchestra.core.errors import OrchestraError
from orchestra.schema.strict_yaml import load_yaml
from orchestra.testing import cassette_file
from orchestra.workflows.program import Program
from tests.workflows.catalog import compiled, whole

TESTS = Path(__file__).resolve().parents[1]
OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Case:
    """One input. `refusal` returns the code and the reported position, or None if the input is accepted."""

    name: str
    code: str
    refusal: Callable[[], tuple[str, str] | None]


def _refused(do: Callable[[], object], where: str = "") -> tuple[str, str] | None:
    """Returns the code and the position of a refusal; `where` must be named if there is no line."""
    try:
        do()
    except OrchestraError as error:
        report = str(error)
        return error.code, str(error.location) if error.location else where if where in report else ""
    return None


def every() -> Iterator[Case]:
    """Returns all cases."""
    yield from _of_files()
    for name, code, text in [*_workflows(), *_types()]:
        yield Case(f"workflow: {name}", code, partial(_refused, partial(compiled, text)))
    for name, code, yaml, prompt in _cards():
        yield Case(f"card: {name}", code, partial(_card, yaml, prompt))
    program = compiled(_PROGRAM)
    for name, code, given in _inputs():
        yield Case(f"input: {name}", code, partial(_refused, partial(_bound, program, given), "input '"))
    for name, make in _JSON:
        yield Case(
            f"input file: {name}", "C013", partial(_refused, partial(parse_json_object, make(), "f.json"), "f.json")
        )
    card = Card.declare(
        "judge", input={"type": "object", "properties": {"t": {"type": "string"}}}, output=OUTPUT, prompt="{{ t }}"
    )
    for name, make in _JSON:
        yield Case(f"output: {name}", "M001", partial(_output, card, make()))
    for name, code, text in _OUTPUTS:
        yield Case(f"output: {name}", code, partial(_output, card, text))
    for name, line in _CASSETTES:
        yield Case(
            f"cassette: {name}",
            "C031",
            partial(_refused, partial(cassette_file.parse_cassette, line, "t.jsonl"), "t.jsonl"),
        )


def _bound(program: Program, given: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return bind_arguments(program, (), given())


def _of_files() -> Iterator[Case]:
    for case in tomllib.loads((TESTS / "schema/hostile.toml").read_text())["case"]:
        yield Case(f"yaml: {case['name']}", case["code"], partial(_refused, partial(load_yaml, case["text"], "f.yaml")))
    for case in tomllib.loads((TESTS / "workflows/compile/refused_workflows.toml").read_text("utf-8"))["case"]:
        yield Case(f"workflow: {case['what']}", case["code"], partial(_refused, partial(compiled, case["text"])))


def _output(card: Card, text: str) -> tuple[str, str] | None:
    found = OutputParser(card).parse(text)
    return (
        (found.code, "judge" if "judge" in found.reason and len(found.reason) < 2_000 else "")
        if isinstance(found, InvalidOutput)
        else None
    )


def _card(yaml: str, prompt: str) -> tuple[str, str] | None:
    with TemporaryDirectory() as folder:
        Path(folder, "agent.yaml").write_text(yaml, "utf-8", "surrogatepass")
        Path(folder, "prompt.md").write_text(prompt, "utf-8", "surrogatepass")
        return _refused(lambda: Card.load(Path(folder)))


TAIL = "\noutput: ${a}\nnodes:\n  a: {tool: shout, with: {text: x}}\n"
USED = "\ninput: {a: T}\noutput: ${a}\nnodes:\n  a: {tool: shout, with: {text: '${input.a.x}'}}\n"
MANY = 4_000


def _nodes(body: Callable[[int], str], count: int = MANY) -> str:
    return "output: ${n1}\nnodes:\n" + "".join(f"  n{i}: {body(i)}\n" for i in range(count))


def _with(template: str) -> str:
    return f"output: ${{a}}\nnodes:\n  a: {{tool: shout, with: {{text: '{template}'}}}}\n"


def _workflows() -> Iterator[tuple[str, str, str]]:
    """Inputs near and beyond the limits. Without limits, each would take excessive time or memory."""
    yield "4,000 misspelt tools", "L111", _nodes(lambda i: "{tool: shoutt, with: {text: x}}")
    yield "4,000 keys that are not there", "L101", _nodes(lambda i: "{tool: shout, withh: {text: x}}")
    yield "references to nowhere", "L051", _nodes(lambda i: f"{{tool: shout, with: {{text: '${{m{i}}}'}}}}", 3_000)
    yield (
        "a circle of 2,000",
        "L110",
        _nodes(lambda i: f"{{tool: shout, with: {{text: '${{n{(i + 1) % 2_000}}}'}}}}", 2_000),
    )
    yield "10,001 nodes", "L106", _nodes(lambda i: "{tool: shout}", 10_001)
    yield "20,000 inputs of no type", "L040", "input:\n" + "".join(f"  i{i}: strr\n" for i in range(20_000)) + TAIL
    yield "one MiB and a bit", "L001", "#" * (1 << 20) + TAIL
    yield "brackets that open", "L011", "[" * 60_000
    yield "mappings that open", "L004", "{a: " * 60_000
    yield "question marks", "L010", "? " * 5_000
    yield "a long quote", "L012", "a: '" + "''" * 300_000 + "'"
    yield "many escapes", "L012", 'a: "' + "\\u0041" * 100_000 + '"'
    yield "20,000 keys", "L101", "".join(f"k{i}: 1\n" for i in range(20_000))
    yield "levels of an expression", "L056", _with("${" + "(" * 400 + "1" + ")" * 400 + "}")
    yield "signs of an expression", "L056", _with("${" + "!" * 1_000 + "true}")
    yield "a long expression", "L056", _with("${" + "1 + " * 5_000 + "1}")
    yield "many placeholders", "L110", _with("${a}" * 15_000)
    yield "an open placeholder", "L050", _with("${" * 10_000)
    yield "a long type", "L041", f"input: {{a: '{'list[' * 300}str'}}" + TAIL
    yield "a deep type", "L041", f"input: {{a: '{'list[' * 40}str{']' * 40}'}}" + TAIL
    yield "a surrogate in a type", "L041", "input: {a: \"Literal['\\\\ud800']\"}" + TAIL
    yield "an escape that names", "L041", "input: {a: \"Literal['\\\\N{BELL}']\"}" + TAIL
    yield "an escape beyond Unicode", "L041", "input: {a: \"Literal['\\\\Uffffffff']\"}" + TAIL
    yield "a call in a type", "L041", "input: {a: \"Literal[__import__('os')]\"}" + TAIL
    yield "a subclass walk", "L052", _with('${"".__class__}'.replace('"', "''"))
    yield "a template", "L104", "output: ${a}\nnodes:\n  a: {template: '{{ cycler.__init__.__globals__.os }}'}\n"
    yield "somebody's import", "L104", "output: ${a}\nnodes:\n  a: {python: 'import os'}\n"
    yield "somebody's shell", "L104", "output: ${a}\nnodes:\n  a: {run: 'id > /tmp/x'}\n"
    yield "an include", "L101", "include: ../../etc/passwd" + TAIL


def _types() -> Iterator[tuple[str, str, str]]:
    def typed(body: str) -> str:
        return "types:\n  T: {type: object, properties: {x: " + body + "}, required: [x]}" + USED

    def doubling(key: str, count: int = 40) -> str:
        steps = "".join(
            f"      T{i}: {{{key}: [{{$ref: '#/$defs/T{i + 1}'}}, {{$ref: '#/$defs/T{i + 1}'}}]}}\n"
            for i in range(count)
        )
        head = (
            "types:\n  T:\n    type: object\n    properties: {x: {$ref: '#/$defs/T0'}}\n    required: [x]\n    $defs:\n"
        )
        return head + steps + f"      T{count}: {{type: string}}" + USED

    for key in ("anyOf", "oneOf", "allOf"):
        yield f"types that double under {key}", "L042", doubling(key)
        inner = f"$defs: {{A: {{{key}: [{{$ref: '#/$defs/A'}}]}}}}"
        circle = f"types:\n  T: {{type: object, properties: {{x: {{$ref: '#/$defs/A'}}}}, required: [x], {inner}}}"
        yield f"a type that is itself under {key}", "L042", circle + USED
    for name, reference in {
        "http": "http://127.0.0.1:1/x",
        "file": "file:///etc/passwd",
        "data": "data:,{}",
        "relative": "../other.json",
        "anchor": "#there",
        "nowhere": "#/$defs/None",
    }.items():
        yield f"a reference by {name}", "L042", typed(f"{{$ref: '{reference}'}}")
    yield "a dynamic reference", "L042", typed("{$dynamicRef: '#x'}")
    yield "a base of its own", "L042", typed("{$id: 'file:///etc/', $ref: 'passwd'}")
    yield "a pattern with a look behind", "L042", typed("{type: string, pattern: '(?<=a)b'}")
    yield "a pattern that refers back", "L042", typed("{type: string, pattern: '(a|aa)+\\1$'}")
    yield "a pattern of a million states", "L042", typed("{type: string, pattern: '(\\w{500}){500}'}")
    yield "a pattern that is none", "L042", typed("{type: string, pattern: '(('}")
    chain = "".join(f", T{i}: {{$ref: '#/$defs/T{i + 1}'}}" for i in range(2_000))
    yield (
        "a chain of references",
        "L042",
        typed("{$ref: '#/$defs/T0'}").replace("[x]}", "[x], $defs: {T2000: {type: string}" + chain + "}}", 1),
    )


_CARD = "schema: orchestra/v1\nname: c\ninput: {t: str}\noutput: str\n"


def _cards() -> Iterator[tuple[str, str, str, str]]:
    prompt = "{{ t }}"
    yield "no mapping", "A002", "- a\n", prompt
    yield "an unknown key", "A002", _CARD + "evil: 1\n", prompt
    yield "a prompt outside", "A003", _CARD + "prompt: ../../../../etc/passwd\n", prompt
    yield "a prompt at the root", "A003", _CARD + "prompt: /etc/passwd\n", prompt
    yield "a prompt that is a folder", "A004", _CARD + "prompt: .\n", prompt
    yield "a prompt of a long name", "A004", _CARD + f"prompt: {'p' * 5_000}\n", prompt
    yield "a tag", "L006", _CARD + "description: !!python/object/apply:os.system [id]\n", prompt
    yield "a merge key", "L007", _CARD + "<<: {a: b}\n", prompt
    yield "an alias", "L005", _CARD + "description: *a\n", prompt
    yield "a pickle", "A002", _CARD + "kind: pickle\n", prompt
    yield "a temperature of infinity", "L013", _CARD + "sampling: {temperature: .inf}\n", prompt
    yield "a negative temperature", "A002", _CARD + "sampling: {temperature: -1}\n", prompt
    yield "an endless output", "A002", _CARD + "max_output: 99999999999999\n", prompt
    yield "a name with a path", "A002", _CARD.replace("name: c", "name: ../c"), prompt
    yield (
        "a reference to a file",
        "L042",
        _CARD.replace("str}", "T}") + "types: {T: {type: object, $ref: 'file:///etc/passwd'}}\n",
        prompt,
    )
    yield (
        "a pattern that is none",
        "L042",
        _CARD.replace("str}", "T}") + "types: {T: {type: string, pattern: '(?=a)'}}\n",
        prompt,
    )
    yield "an unknown type", "L040", _CARD.replace("str}", "os.system}").replace("os.system", "System"), prompt
    for name, text in {
        "an open tag": "{{ t",
        "a tag that is none": "{% exec t %}",
        "deep brackets": "{{ " + "(" * 5_000 + "t" + ")" * 5_000 + " }}",
        "deep conditions": "{% if t %}" * 5_000 + "{% endif %}" * 5_000,
        "no user": "<!-- system -->\nx",
        "nothing": " \n",
        "60,000 messages": "<!-- user -->\nx\n" * 60_000,
    }.items():
        yield f"a prompt with {name}", "A005", _CARD, text
    for name, text in {
        "a walk": "{{ cycler.__init__.__globals__ }}",
        "somebody else's input": "{{ config }}",
        "a request": "{{ request.application }}",
    }.items():
        yield f"a prompt with {name}", "A006", _CARD, text


_PROGRAM = whole(
    "types: {T: {type: object, properties: {x: {type: string}}, required: [x]}}\n"
    "input: {t: str, n: {type: int, default: 1}, o: {type: T, default: {x: y}}, f: {type: float, default: 0.5}}\n"
    "output: ${a}\n"
    "nodes:\n"
    "  a: {tool: shout, with: {text: '${input.t}'}}\n"
)


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _inputs() -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    yield "none", "E012", dict
    yield "one too many", "E012", lambda: {"t": "x", "tt": "x"}
    yield "a long name", "E012", lambda: {"t": "x", "x" * 100_000: "x"}
    yield "another type", "E013", lambda: {"t": 3}
    yield "a lone surrogate", "E013", lambda: {"t": "\ud800"}
    yield "a surrogate key", "E013", lambda: {"t": "x", "o": {"x": "y", "\ud800": 1}}
    yield "NaN", "E013", lambda: {"t": "x", "f": float("nan")}
    yield "infinity", "E013", lambda: {"t": "x", "f": float("inf")}
    yield "5,000 digits", "E013", lambda: {"t": "x", "n": 10**5_000}
    yield "50 digits", "E013", lambda: {"t": "x", "n": 10**50}
    yield "a deep list", "E013", lambda: {"t": _deep(1_000)}
    yield "a deep part", "E013", lambda: {"t": "x", "o": {"x": "y", "z": _deep(150)}}
    yield "a function", "E013", lambda: {"t": print}
    yield "NaN inside", "E013", lambda: {"t": "x", "o": {"x": "y", "z": [float("nan")]}}


_JSON: tuple[tuple[str, Callable[[], str]], ...] = (
    ("NaN", lambda: '{"a": NaN}'),
    ("infinity", lambda: '{"a": -Infinity}'),
    ("a number out of range", lambda: '{"a": 1e999}'),
    ("a key that stands twice", lambda: '{"a": 1, "a": 2}'),
    ("a long key that stands twice", lambda: '{"' + "k" * 200_000 + '": 1, "' + "k" * 200_000 + '": 2}'),
    ("a lone surrogate", lambda: '{"a": "\\ud800"}'),
    ("a surrogate key", lambda: '{"\\udfff": 1}'),
    ("a raw surrogate", lambda: '{"a": "\ud800"}'),
    ("5,000 digits", lambda: '{"a": ' + "9" * 5_000 + "}"),
    ("a million digits", lambda: '{"a": ' + "9" * 1_000_000 + "}"),
    ("65 levels", lambda: '{"a": ' + "[" * 65 + "]" * 65 + "}"),
    ("500,000 levels", lambda: "[" * 500_000 + "]" * 500_000),
    ("brackets that open", lambda: '{"a":' * 100_000),
    ("more than a MiB", lambda: '{"a": "' + "x" * (1 << 20) + '"}'),
    ("more than a MiB of é", lambda: '{"a": "' + "é" * (1 << 19) + '"}'),
    ("prose", lambda: "Sure! Here is your JSON: {"),
    ("a fence", lambda: '```json\n{"a": 1}\n```'),
    ("two values", lambda: '{"a": 1} {"a": 2}'),
    ("a raw control character", lambda: '{"a": "\x00"}'),
    ("a byte order mark", lambda: '\ufeff{"a": 1}'),
    ("single quotes", lambda: "{'a': 1}"),
    ("a comment", lambda: '{"a": 1 /* ; DROP TABLE */}'),
    ("YAML", lambda: "a: !!python/object/apply:os.system [id]"),
    ("a pickle", lambda: "cos\nsystem\n(S'id'\ntR."),
)
_OUTPUTS: tuple[tuple[str, str, str], ...] = (
    ("nothing", "M004", "   "),
    ("another type", "M002", '{"a": "x"}'),
    ("a field too many", "M002", '{"a": 1, "b": 2}'),
    ("a field of a long name", "M002", '{"a": 1, "' + "b" * 500_000 + '": 2}'),
    ("a template", "M002", '{"a": "{{ 7 * 7 }}"}'),
    ("an expression", "M002", '{"a": "${input.secret}"}'),
    ("escapes", "M002", '{"a": "\\u001b]0;x\\u0007\\u202e"}'),
    ("a long list", "M002", "[" + "1," * 200_000 + "1]"),
)
_HEAD = b'{"format":"orchestra/cassette/v2"}\n'
_CASSETTES: tuple[tuple[str, bytes], ...] = (
    ("another format", b'{"format":"pickle"}\n'),
    ("nothing", b""),
    ("no UTF-8", b"\xff\xfe"),
    ("no JSON", _HEAD + b"cos\nsystem\n"),
    ("NaN", _HEAD + b'{"agent":"a","inputs":{"t":NaN},"value":1}\n'),
    ("a key that stands twice", _HEAD + b'{"agent":"a","agent":"b","inputs":{},"value":1}\n'),
    ("an unknown key", _HEAD + b'{"agent":"a","inputs":{},"value":1,"module":"os"}\n'),
    ("agent and tool", _HEAD + b'{"agent":"a","tool":"b","inputs":{},"value":1}\n'),
    ("no reply", _HEAD + b'{"agent":"a","inputs":{}}\n'),
    ("two replies", _HEAD + b'{"agent":"a","inputs":{},"value":1,"cancelled":true}\n'),
    ("negative seconds", _HEAD + b'{"agent":"a","inputs":{},"value":1,"seconds":-1}\n'),
    ("bytes that are none", _HEAD + b'{"agent":"a","inputs":{},"value":1,"sent_base64":"%%%"}\n'),
    ("many levels", _HEAD + b'{"agent":"a","inputs":{"t":' + b"[" * 9_000 + b"]" * 9_000 + b'},"value":1}\n'),
    ("a long line", _HEAD + b'{"agent":"' + b"a" * (1 << 20) + b'","inputs":{},"value":1}\n'),
)
