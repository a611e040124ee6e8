"""The MCP server: each workflow is a tool, and `ask` plans a request.

A call of a tool is a run. Its events become progress notifications, a cancelled call cancels it, and a question to a
person is put to the user of the client: with an elicitation, or, since protocol version 2026-07-28, with a result that
names the input that the call still needs. The state of such a result is the id of the run, and grants nothing: its
sender must own the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final, TypeAlias

import mcp_types as types
import msgspec
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from orchestra.app.run import Run
from orchestra.app.run_detail import Question
from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event, RunFinished
from orchestra.server.agent_protocols.mcp_questions import answer_in, can_elicit, form_of
from orchestra.server.agent_protocols.questions import (
    CLOSED_CODES,
    INVALID_CODE,
    continued_run,
    give_answer,
    open_questions,
    require_run_of,
    wait_until_blocked,
)
from orchestra.server.agent_protocols.replies import AgentReply, error_reply, error_words, reply_of, reply_schema
from orchestra.server.agent_protocols.skills import Skill, cancel_for_client, find_skill, iter_skills, start_skill
from orchestra.server.endpoints import Call
from orchestra.server.openapi import package_version
from orchestra.server.streams import outcome_of

Context: TypeAlias = ServerRequestContext[Any, Any]
CallResult: TypeAlias = types.CallToolResult | types.InputRequiredResult
INSTRUCTIONS: Final = (
    "Each tool runs a workflow of small language models whose answers are checked. The structured result has the "
    "output, the evidence of each claim with its place in the source, and the verdicts of the checks. If `status` is "
    "`abstained`, the answer was withheld: do not make one up. If it is `waiting`, a person must answer first."
)
DECLINED: Final = "declined by the user of the client"
MAX_QUESTIONS: Final = 50
"""Forms that one call shows at most. Then its result says that the run waits."""
PROGRESS_SECONDS: Final = 0.2
"""Seconds between two progress notifications at least: a run may have ten thousand nodes."""


def create_server(call_of: Callable[[Context], Call[Any, Any]]) -> Server[Any]:
    """Returns the MCP server. `call_of` returns who sends a message."""

    async def list_tools(context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(skill) for skill in iter_skills(call_of(context))])

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> CallResult:
        call = call_of(context)
        try:
            skill = find_skill(call, params.name)
        except OrchestraError as error:
            data = {"code": error.code, "hint": error.hint}
            raise MCPError(types.INVALID_PARAMS, error_words(error), data) from error
        return await ToolCall(context, call, skill).run(params)

    return Server(
        "orchestra",
        version=package_version(),
        title="Orchestra",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda _: None,  # No tool has arguments in headers, so none need be checked.
    )


def _tool(skill: Skill) -> types.Tool:
    return types.Tool(
        name=skill.name,
        description=skill.description,
        input_schema=dict(skill.input_schema),
        output_schema=dict(reply_schema(skill.output_schema)),
        annotations=types.ToolAnnotations(read_only_hint=not skill.has_effects),
    )


class ToolCall:
    """One call of a tool."""

    def __init__(self, context: Context, call: Call[Any, Any], skill: Skill) -> None:
        self._context, self._call, self._skill = context, call, skill
        self._seen = 0
        """The number of the last event that counts as progress."""
        self._finished = 0
        """The number of nodes that have finished."""

    async def run(self, params: types.CallToolRequestParams) -> CallResult:
        """Runs the workflow, or continues the run that the state of the call names; returns the result."""
        name, note = "", ""
        try:
            if params.request_state is None:
                run = await start_skill(self._call, self._skill, self._skill.inputs_of(params.arguments or {}))
                name = run.id
            else:
                await require_run_of(self._call, params.request_state, self._skill)
                name = params.request_state
                note = await self._take_responses(name, params.input_responses or {})
                run = await continued_run(self._call, name)
            try:
                return await self._follow(run, note)
            except asyncio.CancelledError:
                cancel_for_client(self._call, run)
                raise
        except OrchestraError as error:
            return _result(error_reply(error, name))

    async def _follow(self, run: Run[Any], note: str) -> CallResult:
        for _ in range(MAX_QUESTIONS):
            await self._wait(run)
            answer = await self._call.services.answer(run.id)
            if answer.status != "waiting" or not self._can_ask:
                break
            if self._context.protocol_version in MODERN_PROTOCOL_VERSIONS:
                requests: dict[str, types.InputRequest] = {
                    str(question.seq): types.ElicitRequest(params=form_of(question, note))
                    for question in answer.questions
                }
                return types.InputRequiredResult(input_requests=requests, request_state=run.id)
            (note, is_open) = await self._elicit(run, answer.questions[0], note)
            if is_open:
                break
            run = await continued_run(self._call, run.id)
        return _result(reply_of(answer, self._skill.output_schema))

    @property
    def _can_ask(self) -> bool:
        """Whether the user of the client can be asked, and may answer."""
        session = self._context.session
        if not self._call.principal.allows("answer") or not can_elicit(session.client_capabilities):
            return False
        return self._context.protocol_version in MODERN_PROTOCOL_VERSIONS or session.can_send_request

    # Questions

    async def _elicit(self, run: Run[Any], question: Question, note: str) -> tuple[str, bool]:
        """Shows a form and answers with it. Returns what was wrong with the answer, and whether the user has left the
        question open.
        """
        form = form_of(question, note)
        try:
            result = await self._context.session.elicit_form(
                form.message, form.requested_schema, related_request_id=self._context.request_id
            )
        except MCPError:
            return "", True  # The client cannot show it, or has gone.
        if result.action == "cancel":
            return "", True
        return await self._answer(run.id, question, result), False

    async def _take_responses(self, run: str, responses: types.InputResponses) -> str:
        """Answers questions with the forms that a client has submitted; returns what was wrong with them."""
        notes = list[str]()
        for question in await open_questions(self._call, run):
            result = responses.get(str(question.seq))
            if isinstance(result, types.ElicitResult) and result.action != "cancel":
                notes.append(await self._answer(run, question, result))
        return "\n".join(filter(None, notes))

    async def _answer(self, run: str, question: Question, result: types.ElicitResult) -> str:
        """Answers a question; returns why the answer is not accepted, or an empty text."""
        decline_value = DECLINED if result.action == "decline" else ""
        try:
            value = None if decline_value else answer_in(question, result.content)
            await give_answer(self._call, run, question, value, decline_value)
        except OrchestraError as error:
            if error.code == INVALID_CODE:
                return error_words(error)
            if error.code not in CLOSED_CODES:
                raise
        return ""

    # Progress

    async def _wait(self, run: Run[Any]) -> None:
        """Waits until a run is blocked, and reports its progress. Raises as `wait_until_blocked` does."""
        reporting = asyncio.ensure_future(self._report(run))
        try:
            await wait_until_blocked(self._call, run)
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)

    async def _report(self, run: Run[Any]) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        async with aclosing(run.events(self._seen)) as events:
            async for event in events:
                self._seen = event.seq
                self._finished += outcome_of(event) is not None
                if isinstance(event, RunFinished):
                    return
                if now() >= due and (text := _progress_text(event)):
                    await self._context.session.report_progress(self._finished, message=text)
                    due = now() + PROGRESS_SECONDS


def _progress_text(event: Event) -> str:
    """Returns the node that an event ends, with its outcome; an empty text for another event."""
    outcome = outcome_of(event)
    return "" if outcome is None else f"{outcome[0]}: {outcome[1].__struct_config__.tag}"


def _result(reply: AgentReply) -> types.CallToolResult:
    data = msgspec.to_builtins(reply)
    return types.CallToolResult(
        content=[
            types.TextContent(text=reply.message),
            types.TextContent(text=msgspec.json.encode(data).decode()),
        ],
        structured_content=data,
        is_error=reply.has_failed,
    )
