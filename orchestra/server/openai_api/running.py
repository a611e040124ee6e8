"""Starts runs for messages, or answers the question of one that waits for a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from orchestra.app.disconnection import CLIENT
from orchestra.app.run import Run
from orchestra.app.run_detail import RunAnswer
from orchestra.engine.request import RunOptions, RunRequest
from orchestra.engine.streaming import TextPiece
from orchestra.schema.assignability import assignability_error
from orchestra.schema.strict_json import parse_untrusted
from orchestra.schema.types import Schema
from orchestra.server.access import require_scope
from orchestra.server.endpoints import Call
from orchestra.server.openai_api.messages import USER, Turn, build_inputs
from orchestra.server.openai_api.models import TEXT, Target
from orchestra.server.openai_api.options import OrchestraOptions
from orchestra.server.problems import RequestError
from orchestra.server.runs import require_run, wait_for_end
from orchestra.server.services import Services


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request says, whichever API it uses."""

    target: Target
    turns: Sequence[Turn]
    asked: OrchestraOptions
    options: RunOptions
    returns: Schema | None
    structured: bool
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run, and the parts of the request without effect."""

    run: Run[Any]
    ignored: tuple[str, ...]


async def start_conversation(call: Call[Any, Any], conversation: Conversation) -> StartedRun:
    """Starts the run of a request, or answers the question of the run that it names.

    Raises:
        RequestError: S031 if the messages do not fit; S009 for an unknown run.
    """
    if conversation.asked.answer_to:
        return StartedRun(await _answer(call, conversation), conversation.ignored)
    target = conversation.target
    inputs = await build_inputs(call, target, conversation.turns, conversation.asked.inputs)
    step = target.build(call, inputs.values, conversation.returns)
    run = await call.services.start(RunRequest(workflow=step, inputs=inputs.values, options=conversation.options))
    return StartedRun(run, (*conversation.ignored, *inputs.ignored))


async def _answer(call: Call[Any, Any], conversation: Conversation) -> Run[Any]:
    """Answers the open question of a run with the last message; returns the run, which goes on."""
    name, turns = conversation.asked.answer_to, conversation.turns
    require_scope(call.principal, "answer")
    await require_run(call, name)
    if not turns or turns[-1].role != USER:
        raise RequestError("S031", "the last message is not of the user", hint="send the answer as the last message",
                           pointer="/messages", status=400)  # fmt: skip
    asked = await call.orchestra.questions(name)
    text = turns[-1].text
    is_text = not asked or assignability_error(TEXT, asked[0].schema) is None or bool(asked[0].options)
    value = text if is_text else parse_untrusted(text)
    await call.orchestra.answer(name, value, by=call.principal.subject)
    if (active := call.orchestra.active_run(name)) is None:
        active = await call.orchestra.resume(name, by=call.principal.subject)
    return active


async def wait_for_answer(call: Call[Any, Any], started: StartedRun, *, cancel: bool) -> RunAnswer:
    """Returns a run that has ended, or waits for a person. With `cancel` it ends if the client disconnects."""
    await wait_for_end(call, started.run, None, cancel=cancel)
    return await call.services.answer(started.run.id)


def disconnection(started: StartedRun, asked: OrchestraOptions) -> Callable[[], None] | None:
    """Returns what is done if the client of a stream disconnects."""
    return (lambda: started.run.cancel(CLIENT)) if asked.on_disconnect == "cancel" else None


async def text_until_blocked(services: Services, run: Run[Any], *, unverified: bool) -> AsyncGenerator[TextPiece, None]:
    """Yields the unverified text of models, if it is wanted, until the run ends or waits for a person.

    Raises:
        RequestError: S010 if the server stops.
    """
    pieces = run.text() if unverified else _no_text()
    async with aclosing(pieces):
        ending: asyncio.Task[Any] = asyncio.ensure_future(run.wait_until_blocked())
        stopping: asyncio.Task[Any] = asyncio.ensure_future(services.stopping.wait())
        reading: asyncio.Task[TextPiece | None] = asyncio.ensure_future(anext(pieces, None))
        waiting = {ending, stopping, reading}
        try:
            while True:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if reading in waiting and reading.done():
                    waiting.discard(reading)
                    if (piece := reading.result()) is not None:
                        yield piece
                        reading = asyncio.ensure_future(anext(pieces, None))
                        waiting.add(reading)
                elif ending.done():
                    ending.result()
                    return
                elif stopping.done():
                    hint = f"GET /api/runs/{run.id}/answer, once a server is back"
                    raise RequestError("S010", f"the server stops; run {run.id} continues later", hint=hint)
        finally:
            for task in (ending, stopping, reading):
                task.cancel()
            await asyncio.gather(ending, stopping, reading, return_exceptions=True)


async def _no_text() -> AsyncGenerator[TextPiece, None]:
    no_pieces: tuple[TextPiece, ...] = ()
    for piece in no_pieces:
        yield piece


def stated_fields(body: Any) -> Mapping[str, Any]:
    """Returns the fields of a request by name."""
    return {name: getattr(body, name) for name in body.__struct_fields__}
