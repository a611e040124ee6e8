"""The answer of a run as another agent reads it: the output with its evidence, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from orchestra.app.claims.claims import OutputClaim
from orchestra.app.run_detail import Guarantee, Question, RunAnswer, RunError, UsageTotal, Withheld
from orchestra.core.errors import OrchestraError
from orchestra.core.events import NO_USAGE
from orchestra.schema.json_schema import bundle_definitions, nullable
from orchestra.schema.types import Schema
from orchestra.server.openai_api.output import message_text

FAILED: Final = frozenset({"failed", "budget", "cancelled"})
"""The statuses of a run without an answer. An abstention is an answer."""


class AgentReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a run. Without an output, `message` says why, and so does `withheld`, `error` or `questions`."""

    run: str
    """The id of the run; empty if none has started."""
    status: str
    """`done`, `abstained`, `waiting`, `failed`, `budget` or `cancelled`."""
    message: str
    """The answer in words, or why there is none."""
    output: Any
    confidence: float | None = None
    withheld: Withheld | None = None
    """Why the output is withheld: its checks did not accept it."""
    error: RunError | None = None
    questions: tuple[Question, ...] = ()
    """The open questions to a person."""
    supported: int = 0
    """The number of claims with evidence."""
    claims: tuple[OutputClaim, ...] = ()
    dropped: tuple[OutputClaim, ...] = ()
    left_out: dict[str, str] = {}
    guarantees: tuple[Guarantee, ...] = ()
    usage: UsageTotal = UsageTotal.of(NO_USAGE)

    @property
    def has_failed(self) -> bool:
        """Whether there is no answer."""
        return self.status in FAILED


def reply_of(answer: RunAnswer, schema: Schema) -> AgentReply:
    """Returns the reply for a run that has ended, or waits for a person. `schema` is the type of its output."""
    shared = (set(AgentReply.__struct_fields__) & set(RunAnswer.__struct_fields__)) - {"error"}
    return AgentReply(
        run=answer.id, message=_message(answer, schema), error=_error_of(answer),
        **{name: getattr(answer, name) for name in sorted(shared)},
    )  # fmt: skip


def _message(answer: RunAnswer, schema: Schema) -> str:
    if answer.status == "waiting":
        return f"{_question_words(answer)}\n{how_to_answer(answer.id)}"
    try:
        return message_text(answer, schema, structured=False).content or ""
    except OrchestraError as error:
        return error_words(error)


def _question_words(answer: RunAnswer) -> str:
    lines = [f"Run {answer.id} waits for the answer of a person:"]
    for question in answer.questions:
        options = f" ({', '.join(question.options)})" if question.options else ""
        lines.append(f"{question.node}: {question.question}{options}")
    return "\n".join(lines)


def how_to_answer(run: str) -> str:
    """Returns how a person answers a question. Agents are not offered a tool for it: a person decides."""
    return f"A person answers it in the studio, with `orchestra runs answer {run}`, or POST /api/runs/{run}/answers."


def _error_of(answer: RunAnswer) -> RunError | None:
    if answer.error is not None or answer.status not in FAILED:
        return answer.error
    return RunError(code="S033", message=f"the run is {answer.status}", hint=f"GET /api/runs/{answer.id}", node="")


def error_reply(error: OrchestraError, run: str = "") -> AgentReply:
    """Returns the reply for a request that failed; `run` goes on, if it is stated."""
    return AgentReply(
        run=run,
        status="failed",
        message=error_words(error),
        output=None,
        error=RunError(code=error.code, message=error.message, hint=error.hint, node=error.node),
    )


def error_words(error: OrchestraError) -> str:
    """Returns an error as one line: code, message and hint."""
    return f"{error.code}: {error.message}; {error.hint}" if error.hint else f"{error.code}: {error.message}"


def reply_schema(output: Schema) -> Schema:
    """Returns the type of the replies of a workflow with outputs of this type, as one JSON Schema."""
    _, components = msgspec.json.schema_components([AgentReply], ref_template="#/$defs/{name}")
    reply: Mapping[str, Any] = components.pop(AgentReply.__name__)
    properties = {**reply["properties"], "output": nullable(output) if output else {}}
    # The output has definitions of its own, which may have the same names.
    return bundle_definitions({**reply, "properties": properties, "$defs": components})
