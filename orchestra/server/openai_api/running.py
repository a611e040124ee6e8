"""Starts runs for messages, or answers the question of one that waits for a person."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from orchestra.app.disconnection import CLIENT
from orchestra.app.run import Run
from orchestra.app.run_detail import RunAnswer
from orchestra.engine.request import RunOptions, RunRequest
from orchestra.engine.streaming import TextPiece
from orchestra.schema.assignability import assignability_error
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted
from orchestra.schema.types import Schema
from orchestra.server.access import require_scope
from orchestra.server.endpoints import Call
from orchestra.server.openai_api.messages import USER, Turn, build_inputs
from orchestra.server.openai_api.models import TEXT
from orchestra.server.openai_api.options import OrchestraOptions, OutputTarget
from orchestra.server.openai_api.output import (
    MessageText,
    OrchestraExtension,
    extension_of,
    message_text,
    without_unsupported,
)
from orchestra.server.problems import RequestError
from orchestra.server.run_following import items_until_blocked
from orchestra.server.runs import require_run, wait_for_end
from orchestra.server.streams import EventStream


@dataclass(frozen=True, slots=True)
class Conversation:
    """The content of a request, whichever API it uses."""

    target: OutputTarget
    turns: Sequence[Turn]
    asked: OrchestraOptions
    options: RunOptions


@dataclass(frozen=True, slots=True)
class StartedRun:
    """The run of a conversation, and the parts of the request without effect."""

    run: Run[Any]
    conversation: Conversation
    ignored: tuple[str, ...]

    @property
    def output_schema(self) -> Schema:
        """The type of the output."""
        return self.conversation.target.target.output

    def text(self, answer: RunAnswer) -> MessageText:
        """Returns the text of the message. Raises `RequestError` if the run has failed, or was cancelled."""
        structured = self.conversation.target.structured
        text = message_text(answer, self.output_schema, structured=structured)
        if self.conversation.asked.verified_only and answer.status == "done":
            return without_unsupported(text, answer, structured=structured)
        return text

    def extension(self, answer: RunAnswer) -> OrchestraExtension:
        """Returns the evidence and verdicts of the message."""
        return extension_of(answer, self.ignored)


async def start_conversation(call: Call[Any, Any], conversation: Conversation) -> StartedRun:
    """Starts the run of a request, or answers the question of the run that it names.

    Raises:
        RequestError: S031 if the messages do not fit; S009 for an unknown run.
    """
    target = conversation.target
    if conversation.asked.answer_to:
        return StartedRun(await _answer(call, conversation), conversation, target.ignored)
    inputs = await build_inputs(call, target.target, conversation.turns, conversation.asked.inputs)
    step = target.target.build(call, inputs.values, target.returns)
    run = await call.services.start(RunRequest(workflow=step, inputs=inputs.values, options=conversation.options))
    return StartedRun(run, conversation, (*target.ignored, *inputs.ignored))


async def _answer(call: Call[Any, Any], conversation: Conversation) -> Run[Any]:
    """Answers the open question of a run with the last message; returns the run, which goes on."""
    name, turns = conversation.asked.answer_to, conversation.turns
    require_scope(call.principal, "answer")
    await require_run(call, name)
    if not turns or turns[-1].role != USER:
        raise RequestError("S031", "the last message is not of the user", hint="send the answer as the last message",
                           pointer="/messages", status=400)  # fmt: skip
    questions = await call.orchestra.questions(name)
    text = turns[-1].text
    is_text = not questions or assignability_error(TEXT, questions[0].schema) is None or bool(questions[0].options)
    try:
        value = text if is_text else parse_untrusted(text)
    except StrictJsonError as error:
        raise RequestError("E022", f"the answer is not JSON: {error}", hint="answer with JSON",
                           pointer="/messages") from error  # fmt: skip
    await call.orchestra.answer(name, value, by=call.principal.subject)
    if (active := call.orchestra.active_run(name)) is None:
        active = await call.orchestra.resume(name, by=call.principal.subject)
    return active


async def wait_for_answer(call: Call[Any, Any], started: StartedRun) -> RunAnswer:
    """Returns a run that has ended, or waits for a person. It is cancelled if the client disconnects, unless the
    request wants it to continue.
    """
    cancel = started.conversation.asked.on_disconnect == "cancel"
    await wait_for_end(call, started.run, None, cancel=cancel)
    return await call.services.answer(started.run.id)


def location(call: Call[Any, Any], started: StartedRun, path: str) -> dict[str, str]:
    """Returns the header with the address of a run below a path."""
    return {"Location": f"{call.request.scope.get('root_path', '')}{path}/{started.run.id}"}


def stream(
    call: Call[Any, Any], started: StartedRun, frames: AsyncGenerator[bytes, None], headers: dict[str, str]
) -> EventStream:
    """Returns the reply with a stream. If the client disconnects, it is as in `wait_for_answer`."""
    on_disconnect: Callable[[], None] | None = None
    if started.conversation.asked.on_disconnect == "cancel":

        def on_disconnect() -> None:
            started.run.cancel(CLIENT)

    return EventStream(call.services, frames, headers, on_disconnect, watches_stop=True)


async def text_until_blocked(call: Call[Any, Any], started: StartedRun) -> AsyncGenerator[TextPiece, None]:
    """Yields the unverified text of models, if it is wanted, until the run ends or waits for a person.

    Raises:
        RequestError: S010 if the server stops.
    """
    pieces = started.run.text() if started.conversation.asked.unverified else _no_text()
    async with aclosing(items_until_blocked(call.services, started.run, pieces)) as text:
        async for piece in text:
            yield piece


async def _no_text() -> AsyncGenerator[TextPiece, None]:
    no_pieces: tuple[TextPiece, ...] = ()
    for piece in no_pieces:
        yield piece
