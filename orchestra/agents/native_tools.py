"""Native function calling: the `tools` of a chat request, and the translation of its `tool_calls` into lines.

Servers with OpenAI's API accept the functions of a request as JSON Schemas, and models answer with calls of them in the
form that they were trained on (https://platform.openai.com/docs/guides/function-calling,
https://docs.ollama.com/capabilities/tool-calling). The functions are computed with each question for a line. A call is
translated into the line that a model without function calling would have written. So there is one path for both:
parsing, validation, effects, approval, repairs and the journal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from typing import Any

import msgspec

from orchestra.core.untrusted_text import neutralize
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted
from orchestra.schema.types import Schema

MAX_FUNCTIONS = 128
"""Maximum number of functions of a request: OpenAI's limit."""
MAX_LENGTH = 1 << 16
"""Maximum characters of the functions of a question as JSON. With more, the question has its text form only."""
MAX_NAME_LENGTH = 64
"""Maximum characters of a function name: OpenAI's limit."""
RETURN = "return"
"""The line after which the answer is requested."""
RAW_ARGUMENTS = "arguments"
"""The name of the argument for arguments that are not a JSON object. The line is then rejected with the reason."""

_INVALID_CHARACTERS = re.compile(r"[^A-Za-z0-9_-]+")
_LINE_START = re.compile(r"(s[1-9][0-9]*\s*=|return\b|```|[{\[<])")
"""The beginning of a line, or of a call that the server has not recognised as one."""
_CALL_START = re.compile(r"(?:```\w*\s*|<tool_call>\s*)+(?=[{\[])|(?=[{\[])")
"""What is before the JSON of a call in a text."""
_CALL_END = re.compile(r"```|</tool_call>")


class NativeFunction(msgspec.Struct, frozen=True):
    """A function of a request."""

    name: str
    """Its name in the request, which has letters, digits, underscores and hyphens only."""
    capability: str
    """The name in plan notation of the tool or the agent."""
    description: str
    parameters: Schema


class NativeTools(msgspec.Struct, frozen=True):
    """What a model may call next."""

    step: int
    """Number of the next line, from 1."""
    functions: tuple[NativeFunction, ...]
    references: frozenset[str]
    """The values that an argument may name, such as `input.question` and `s1[0].text`."""

    def encode(self) -> str:
        """Serializes the functions as an input of the question; empty if they are too many or too long."""
        text = json.dumps({**msgspec.to_builtins(self), "references": sorted(self.references)}, ensure_ascii=False)
        return text if len(text) <= MAX_LENGTH and len(self.functions) <= MAX_FUNCTIONS else ""

    @classmethod
    def decode(cls, text: object) -> NativeTools | None:
        """Restores serialized functions; None if the text is not of that form."""
        if not isinstance(text, str) or not text:
            return None
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            return None

    def definitions(self) -> list[dict[str, Any]]:
        """Returns the functions as the `tools` of a chat request, without the tokens of chat templates."""
        return [
            {
                "type": "function",
                "function": {
                    "name": function.name,
                    "description": neutralize(function.description),
                    "parameters": _neutralize_strings(function.parameters),
                },
            }
            for function in self.functions
        ]

    def write_lines(self, calls: Sequence[ToolCall], text: str) -> str:
        """Translates the calls of a response into lines. A response without calls is the word `return`: the model has
        called what it needs. Text that looks like a line is not changed, also if it is no valid one.

        Small models write a call as JSON without the marks by which the server recognises it, so such a text is a call.
        Text beside calls is left out, because the protocol allows it as a comment.
        """
        if calls := calls or parse_text_calls(text):
            return "\n".join(self._write_line(call, number) for number, call in enumerate(calls, self.step))
        stripped_text = text.strip()
        return text if not stripped_text or _LINE_START.match(stripped_text) else RETURN

    def _write_line(self, call: ToolCall, number: int) -> str:
        names = {function.name: function.capability for function in self.functions}
        name = names.get(call.name) or _INVALID_CHARACTERS.sub("_", call.name) or "nothing"
        return f"s{number} = {name}({', '.join(self._write_arguments(call.arguments))})"

    def _write_arguments(self, raw: str) -> Iterable[str]:
        try:
            arguments = parse_untrusted(raw) if raw.strip() else {}
        except StrictJsonError:
            text = " ".join(raw.split())
            return [f"{RAW_ARGUMENTS}={text if text.startswith('{') else json.dumps(text, ensure_ascii=False)}"]
        if arguments is None:
            return []
        if not isinstance(arguments, dict):
            return [f"{RAW_ARGUMENTS}={json.dumps(arguments, ensure_ascii=False)}"]
        return [f"{name}={self._write_value(value)}" for name, value in arguments.items()]

    def _write_value(self, value: Any) -> str:
        """A text that is the name of an available value is a reference to it."""
        return value if isinstance(value, str) and value in self.references else json.dumps(value, ensure_ascii=False)


class ToolCall(msgspec.Struct, frozen=True):
    """A call in a response. Nothing of it is trusted."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""


def parse_text_calls(text: str) -> list[ToolCall]:
    """Returns the calls `{"name", "arguments"}` that a text is, alone, in a list, in a code block or in a tag; none for
    another text. Llama 3 writes `parameters` in place of `arguments`.
    """
    stripped_text = text.strip()
    if (start := _CALL_START.match(stripped_text)) is None:
        return []
    try:
        value = parse_untrusted(_CALL_END.split(stripped_text[start.end() :])[0])
    except StrictJsonError:
        return []
    tool_calls = [_parse_text_call(item) for item in (value if isinstance(value, list) else [value])]
    calls = [call for call in tool_calls if call is not None]
    return calls if len(calls) == len(tool_calls) else []


def _parse_text_call(value: Any) -> ToolCall | None:
    """Returns the call that an object is; None if it is none."""
    match value:
        case {"name": str(name), "arguments": arguments} | {"name": str(name), "parameters": arguments} if (
            len(value) == 2
        ):
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            return ToolCall(name, text)
        case _:
            return None


def function_names(capabilities: Iterable[str]) -> dict[str, str]:
    """Returns the function name of each capability: its name with other characters replaced, distinct, and short."""
    names: dict[str, str] = {}
    taken_names: set[str] = set()
    for capability in capabilities:
        short = _INVALID_CHARACTERS.sub("_", capability)[: MAX_NAME_LENGTH - 4]
        numbered_names = chain([short], (f"{short}_{number}" for number in count(2)))
        name = next(candidate for candidate in numbered_names if candidate not in taken_names)
        taken_names.add(name)
        names[capability] = name
    return names


def _neutralize_strings(value: Any) -> Any:
    match value:
        case str():
            return neutralize(value)
        case Mapping():
            return {key: _neutralize_strings(item) for key, item in value.items()}
        case list() | tuple():
            return [_neutralize_strings(item) for item in value]
        case _:
            return value
