"""What other agents may call: each workflow, and `ask`, which plans a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from orchestra.app.disconnection import CLIENT
from orchestra.app.run import Run
from orchestra.core.errors import OrchestraError
from orchestra.engine.request import RunRequest
from orchestra.schema.strict_json import storage_error
from orchestra.schema.types import Schema
from orchestra.server.endpoints import Call
from orchestra.server.files import resolve_files
from orchestra.server.openai_api.models import AUTO, Target, find_target, input_schema
from orchestra.server.problems import RequestError, pointer_of
from orchestra.server.runs import NO_OPTIONS, find_step, recorded_options
from orchestra.workflows.analysis import walk_programs
from orchestra.workflows.model import ASK_WORKFLOW, REQUEST
from orchestra.workflows.python.steps import Workflow

ASK: Final = ASK_WORKFLOW
"""The name of the skill that plans a request. A workflow of this name is not offered."""
ASK_DESCRIPTION: Final = (
    "Plans a request in a person's words, and runs the plan. Use it if no other tool fits. `values` has what the "
    "request is about, by name."
)


class AskArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The arguments of `ask`."""

    request: str
    values: dict[str, Any] = {}


ASK_SCHEMA: Final[Schema] = {
    "type": "object",
    "properties": {
        "request": {"type": "string", "minLength": 1, "description": "The request, in a person's words."},
        "values": {"type": "object", "description": "Values that the request is about, such as documents, by name."},
    },
    "required": ["request"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Skill:
    """A workflow, or the router, as other agents see it."""

    name: str
    description: str
    target: Target
    input_schema: Schema
    has_effects: bool
    """Whether a run may change something outside."""
    asks: bool
    """Whether a run may ask a person."""

    @property
    def is_router(self) -> bool:
        """Whether it plans a request."""
        return self.target.step is None

    @property
    def output_schema(self) -> Schema:
        """The type of the output."""
        return self.target.output

    def inputs_of(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the inputs that arguments state. Raises `RequestError` S002."""
        if reason := storage_error(dict(arguments)):
            raise RequestError("S002", f"the arguments cannot be stored: {reason}", hint="send plain JSON values")
        if not self.is_router:
            return dict(arguments)
        try:
            ask_arguments = msgspec.convert(dict(arguments), AskArguments)
        except msgspec.ValidationError as error:
            text, place = pointer_of(str(error))
            raise RequestError("S002", text, hint='{"request": "...", "values": {}}', pointer=place) from error
        return {**ask_arguments.values, REQUEST: ask_arguments.request}


def iter_skills(call: Call[Any, Any]) -> Iterator[Skill]:
    """Yields what may be called. Workflows that do not compile are left out; `GET /api/workflows` says why."""
    yield _router(call)
    for name in call.orchestra.workflows():
        if name != ASK:
            try:
                yield find_skill(call, name)
            except OrchestraError:
                continue


def find_skill(call: Call[Any, Any], name: str, pointer: str = "") -> Skill:
    """Returns what a name means. Raises `RequestError` S009 for another name."""
    if name == ASK:
        return _router(call)
    step = find_step(call, name, pointer)
    if not isinstance(step, Workflow):
        raise RequestError("S009", f"there is no workflow {name!r}", hint="GET /api/workflows", pointer=pointer)
    target, program = find_target(call, name), call.orchestra.program(step)
    return Skill(
        name=name,
        description=program.graph.description if program.graph is not None else "",
        target=target,
        input_schema=input_schema(target),
        has_effects=any(node.has_effects for node in program.nodes),
        asks=any(node.kind == "ask" for part in walk_programs(program) for node in part.nodes),
    )


def _router(call: Call[Any, Any]) -> Skill:
    target = find_target(call, AUTO)
    return Skill(ASK, ASK_DESCRIPTION, target, ASK_SCHEMA, has_effects=False, asks=False)


async def start_skill(
    call: Call[Any, Any], skill: Skill, inputs: Mapping[str, Any], tags: Mapping[str, str] | None = None
) -> Run[Any]:
    """Starts a run of the caller's tenant. If the caller is cancelled meanwhile, so is the run.

    Raises:
        RequestError: S009 for a file that is not there, S010 while the server stops; and as `Orchestra.start` does.
    """
    values: dict[str, Any] = await resolve_files(call, dict(inputs))
    step = skill.target.build(call, values, None)
    options = recorded_options(NO_OPTIONS, {**(tags or {}), **call.principal.marks}, "")
    request = RunRequest(workflow=step, inputs=values, options=options)
    starting = asyncio.ensure_future(call.services.start(request))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        call.services.spawn(_cancel_started(call, starting))
        raise


async def _cancel_started(call: Call[Any, Any], starting: asyncio.Future[Run[Any]]) -> None:
    """Cancels a run as soon as it has started."""
    with suppress(OrchestraError):  # It has not started.
        cancel_for_client(call, await starting)


def cancel_for_client(call: Call[Any, Any], run: Run[Any]) -> None:
    """Cancels a run whose client has gone. Not while the server stops: it closes the connections itself then, and the
    next server continues the run.
    """
    if not call.services.stopping.is_set():
        run.cancel(CLIENT)
