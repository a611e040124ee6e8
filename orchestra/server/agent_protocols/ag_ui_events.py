"""The events of a run in the encoding of AG-UI 1.0: steps, calls of tools, the verified text, and the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Final

import msgspec

from orchestra.app.run_detail import Question, RunAnswer
from orchestra.core.errors import OrchestraError
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, QuestionAsked, RunFinished, RunStarted
from orchestra.schema.types import Schema
from orchestra.server.agent_protocols.replies import AgentReply, reply_of
from orchestra.server.openai_api.output import MessageText
from orchestra.server.services import Services
from orchestra.server.streams import outcome_of, run_events

CONTEXT_TAG: Final = "orchestra.context"
"""The tag of runs with the conversation to which another agent assigns them: a context of A2A, a thread of AG-UI."""
AgUiEvent = dict[str, Any]


class AgUiEncoder:
    """Translates the events of one run. Its events are in a valid order: each opened step and call is closed."""

    def __init__(self, services: Services, thread: str, run: str) -> None:
        """Makes the encoder. `run` is the id that the client uses for the run."""
        self._services, self._thread, self._run = services, thread, run
        self._steps = dict[str, None]()
        """The open steps, in their order."""
        self._calls = dict[tuple[str, int], str]()
        """The open calls of tools, by node and attempt."""

    def started(self, run: str) -> Iterator[AgUiEvent]:
        """Yields the begin of a run with this id."""
        ids = {"threadId": self._thread, "runId": self._run}
        yield {"type": "RUN_STARTED", **ids, "protocolVersion": "1.0"}
        yield {"type": "STATE_SNAPSHOT", "snapshot": {"run": run, "status": "running"}}

    async def events_of(self, event: Event) -> list[AgUiEvent]:
        """Returns what an event becomes."""
        match event:
            case AttemptStarted(node=node, attempt=attempt, name=name):
                return [*self._open(node), *self._open_call(node, attempt, name)]
            case AttemptFinished(node=node, attempt=attempt, name=name):
                opened = [*self._open(node), *self._open_call(node, attempt, name)]
                closing_events = await self._close_call(event)
                return [*opened, *closing_events, *(self._close(node) if event.final else ())]
            case QuestionAsked():
                question = msgspec.to_builtins(Question.of(event))
                return [{"type": "CUSTOM", "name": "orchestra.question", "value": question}]
            case _ if (outcome := outcome_of(event)) is not None:
                return [*self._open(outcome[0]), *self._close(outcome[0])]
            case _:
                return []

    def _open(self, node: str) -> Iterator[AgUiEvent]:
        if node not in self._steps:
            self._steps[node] = None
            yield {"type": "STEP_STARTED", "stepName": node}

    def _close(self, node: str) -> Iterator[AgUiEvent]:
        if node in self._steps:
            del self._steps[node]
            yield {"type": "STEP_FINISHED", "stepName": node}

    def _open_call(self, node: str, attempt: int, name: str) -> Iterator[AgUiEvent]:
        if name in self._services.orchestra.registry.tools and (node, attempt) not in self._calls:
            call = self._calls[node, attempt] = f"{node}#{attempt}"
            yield {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": name}

    async def _close_call(self, event: AttemptFinished) -> list[AgUiEvent]:
        """Returns the end of a call: its arguments, if they are stored, and its result."""
        if (call := self._calls.pop((event.node, event.attempt), None)) is None:
            return []
        call_arguments = await self._services.orchestra.journal.get_blob(event.sent) if event.sent else None
        text = (call_arguments or b"").decode("utf-8", "replace")
        arguments = [{"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": text}] if text else []
        content = f"{event.error}: {event.reason}" if event.error else msgspec.json.encode(event.value).decode()
        result = {"messageId": f"{call}:result", "toolCallId": call, "content": content, "role": "tool"}
        return [*arguments, {"type": "TOOL_CALL_END", "toolCallId": call}, {"type": "TOOL_CALL_RESULT", **result}]

    def ended(self, answer: RunAnswer, schema: Schema) -> Iterator[AgUiEvent]:
        """Yields the end of a run, or its pause for a person; the text is that of the checked answer."""
        reply = reply_of(answer, schema)
        for call in self._calls.values():
            yield {"type": "TOOL_CALL_END", "toolCallId": call}
        self._calls.clear()
        for node in list(self._steps):
            yield from self._close(node)
        if answer.status in ("done", "abstained"):
            yield from _message(answer.id, reply.message)
        yield {"type": "STATE_SNAPSHOT", "snapshot": msgspec.to_builtins(reply)}
        if answer.status in ("failed", "budget"):
            code = reply.error.code if reply.error is not None else "S033"
            yield {"type": "RUN_ERROR", "message": reply.message, "code": code}
            return
        ids = {"threadId": self._thread, "runId": self._run}
        yield {"type": "RUN_FINISHED", **ids, "result": msgspec.to_builtins(reply.output), "outcome": _outcome(reply)}


def _message(run: str, text: str) -> Iterator[AgUiEvent]:
    message = f"{run}:answer"
    yield {"type": "TEXT_MESSAGE_START", "messageId": message, "role": "assistant"}
    for piece in MessageText(content=text).pieces():
        yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": message, "delta": piece}
    yield {"type": "TEXT_MESSAGE_END", "messageId": message}


def _outcome(reply: AgentReply) -> dict[str, Any]:
    if reply.status == "cancelled":
        return {"type": "cancelled"}
    if reply.status != "waiting":
        return {"type": "success"}
    return {"type": "interrupt", "interrupts": [_interrupt(reply.run, question) for question in reply.questions]}


def _interrupt(run: str, question: Question) -> dict[str, Any]:
    schema = {"type": "string", "enum": list(question.options)} if question.options else question.schema
    return {
        "id": f"{run}:{question.seq}", "reason": "question", "message": question.question, "responseSchema": schema,
    }  # fmt: skip


def error_event(error: OrchestraError, message: str) -> AgUiEvent:
    """Returns the end of a stream that fails."""
    return {"type": "RUN_ERROR", "message": message, "code": error.code}


def ag_ui_frame(event: AgUiEvent, seq: int | None = None) -> bytes:
    """Returns one event as a server-sent event. AG-UI names none."""
    head = b"" if seq is None else b"id: %d\n" % seq
    return b"%sdata: %s\n\n" % (head, msgspec.json.encode(event))


async def output_schema_of(services: Services, started: RunStarted) -> Schema:
    """Returns the type of the output of a run; that of any value if its workflow cannot be read."""
    try:
        return (await services.orchestra.stored_program(started)).output_schema
    except OrchestraError:
        return {}


async def ag_ui_frames(services: Services, run: str, after: int) -> AsyncGenerator[bytes, None]:
    """Yields a run to its end. The last frame of an event has its number; frames up to `after` are left out."""
    start_event = await services.started(run)
    thread = start_event.tags.get(CONTEXT_TAG, run) if start_event is not None else run
    schema = await output_schema_of(services, start_event) if start_event is not None else {}
    encoder = AgUiEncoder(services, thread, run)
    async with aclosing(run_events(services, run, 0)) as events:
        async for event in events:
            if isinstance(event, RunStarted):
                ag_ui_events = list(encoder.started(run))
            elif isinstance(event, RunFinished):
                ag_ui_events = list(encoder.ended(await services.answer(run), schema))
            else:
                ag_ui_events = await encoder.events_of(event)
            if event.seq > after:
                for number, ag_ui_event in enumerate(ag_ui_events, 1):
                    yield ag_ui_frame(ag_ui_event, event.seq if number == len(ag_ui_events) else None)
