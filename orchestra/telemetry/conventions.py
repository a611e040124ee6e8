"""The semantic conventions of OpenTelemetry for generative AI, in one pinned version.

The conventions still change. No other module contains a name of theirs, so a new version changes this module only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from orchestra.core.events import Usage, Verdict
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted

SCHEMA_VERSION: Final = "1.44.0"
"""The version of the conventions. `plan` and `gen_ai.workflow.name` on children are from its GenAI part in development.
"""
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{SCHEMA_VERSION}"
PROVIDER: Final = "orchestra"
"""The provider of the calls: the fleet, which chooses the server."""
MAX_CONTENT_CHARACTERS: Final = 64 << 10
"""Maximum length of one attribute with content."""

Attributes: TypeAlias = dict[str, Any]

INVOKE_WORKFLOW, INVOKE_AGENT, EXECUTE_TOOL, CHAT, PLAN = (
    "invoke_workflow",
    "invoke_agent",
    "execute_tool",
    "chat",
    "plan",
)
EVALUATION_EVENT: Final = "gen_ai.evaluation.result"
ERROR_TYPE: Final = "error.type"
_FINISH_REASON = re.compile(rb'(?<!\\)"finish_reason"\s*:\s*"(stop|length|tool_calls|content_filter|abort)"')
_FINISH_REASON_BYTES = 8 << 10
"""Bytes at the end of a response that are searched for the finish reason."""


def operation(name: str, workflow: str) -> Attributes:
    """Returns the attributes that each span of a run has."""
    return {
        "gen_ai.operation.name": name,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.workflow.name": workflow,
    }


def agent(name: str, version: str) -> Attributes:
    """Returns the attributes of the agent of a span; `version` is the digest of its card, or empty."""
    return {"gen_ai.agent.name": name, **({"gen_ai.agent.version": version} if version else {})}


def tool(name: str, call_id: str) -> Attributes:
    """Returns the attributes of the tool of a span."""
    return {"gen_ai.tool.name": name, "gen_ai.tool.type": "function", "gen_ai.tool.call.id": call_id}


def usage(used: Usage) -> Attributes:
    """Returns the tokens of a call, as the server counted them; nothing if it counted none."""
    attributes: Attributes = {}
    if used.prompt_tokens or used.output_tokens:
        attributes |= {
            "gen_ai.usage.input_tokens": used.prompt_tokens,
            "gen_ai.usage.output_tokens": used.output_tokens,
        }
    if used.cached_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = used.cached_tokens
    return attributes


def chat(model: str, received: bytes) -> Attributes:
    """Returns the attributes of one request to a model."""
    reasons = _finish_reasons(received)
    return {
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        **({"gen_ai.response.finish_reasons": reasons} if reasons else {}),
    }


def _finish_reasons(response_body: bytes) -> list[str]:
    reasons = _FINISH_REASON.findall(response_body[-_FINISH_REASON_BYTES:])
    return [reasons[-1].decode()] if reasons else []


def evaluation(verdict: Verdict, *, explain: bool) -> Attributes:
    """Returns the attributes of the event for a verdict. The explanation may quote data of the run."""
    return {
        "gen_ai.evaluation.name": verdict.check,
        "gen_ai.evaluation.score.value": float(verdict.score),
        "gen_ai.evaluation.score.label": verdict.outcome,
        **({"gen_ai.evaluation.explanation": shorten(verdict.reason)} if explain and verdict.reason else {}),
    }


# Content: only exported if the settings allow it for the label of the run


def chat_content(sent: bytes, received: bytes) -> Attributes:
    """Returns the prompt and the answer of a request to a model."""
    return {
        "gen_ai.input.messages": shorten(_messages(_input_messages(sent) or [("user", _decode(sent))])),
        "gen_ai.output.messages": shorten(_messages(_output_messages(received) or [("assistant", _decode(received))])),
    }


def tool_content(arguments: Any, result: Any) -> Attributes:
    """Returns the arguments and the result of a tool call."""
    return {
        **({} if arguments is None else {"gen_ai.tool.call.arguments": shorten(to_json(arguments))}),
        **({} if result is None else {"gen_ai.tool.call.result": shorten(to_json(result))}),
    }


def value_content(inputs: Any, output: Any) -> Attributes:
    """Returns the inputs and the output of a workflow or an agent, as one message each."""
    return {
        **({} if inputs is None else {"gen_ai.input.messages": shorten(_messages([("user", to_json(inputs))]))}),
        **({} if output is None else {"gen_ai.output.messages": shorten(_messages([("assistant", to_json(output))]))}),
    }


def to_json(value: Any) -> str:
    """Returns a value as compact JSON; a text stays as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shorten(text: str) -> str:
    """Returns a text of at most `MAX_CONTENT_CHARACTERS` characters."""
    return text if len(text) <= MAX_CONTENT_CHARACTERS else text[: MAX_CONTENT_CHARACTERS - 1] + "…"


def _messages(messages: Sequence[tuple[str, str]]) -> str:
    return to_json([{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in messages])


def _input_messages(request_body: bytes) -> list[tuple[str, str]]:
    match _parse(request_body):
        case {"messages": list(messages)}:
            return [
                (str(message.get("role", "user")), to_json(message.get("content") or ""))
                for message in messages
                if isinstance(message, Mapping)
            ]
        case {"prompt": str(prompt)}:
            return [("user", prompt)]
        case _:
            return []


def _output_messages(response_body: bytes) -> list[tuple[str, str]]:
    match _parse(response_body):
        case {"choices": [{"message": {"content": str(text)}}, *_]} | {"choices": [{"text": str(text)}, *_]}:
            return [("assistant", text)]
        case _:
            return []


def _parse(data: bytes) -> Any:
    try:
        return parse_untrusted(_decode(data))
    except StrictJsonError:
        return None


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
