"""Questions to persons: how another agent's user answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from orchestra.app.run import Run
from orchestra.app.run_detail import Question
from orchestra.core.events import RunStarted
from orchestra.schema.assignability import assignability_error
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted
from orchestra.server.agent_protocols.skills import Skill
from orchestra.server.endpoints import Call
from orchestra.server.openai_api.models import TEXT
from orchestra.server.problems import RequestError, not_found
from orchestra.server.runs import require_run
from orchestra.server.streams import stop_error

CLOSED_CODES: Final = frozenset({"E021", "E031", "E037"})
"""The errors of an answer to a question that is no longer open: another person was first, or it is too late."""
INVALID_CODE: Final = "E022"
"""The error of an answer that the question does not accept."""


def takes_text(question: Question) -> bool:
    """Whether an answer in words is the value itself; otherwise it is JSON."""
    return bool(question.options) or assignability_error(TEXT, question.schema) is None


def value_of_text(question: Question, text: str) -> Any:
    """Returns the value of an answer in words. Raises `RequestError` E022 for a text that is not JSON, if JSON is
    needed.
    """
    if takes_text(question):
        return text
    try:
        return parse_untrusted(text)
    except StrictJsonError as error:
        raise RequestError(INVALID_CODE, f"the answer is not JSON: {error}", hint="answer with JSON") from error


async def give_answer(call: Call[Any, Any], run: str, question: Question, value: Any, decline_reason: str = "") -> None:
    """Answers a question, or declines it. Raises `InputError` as `Orchestra.answer` does."""
    await call.orchestra.answer(
        run,
        value,
        node=question.node,
        by=call.principal.subject,
        question_digest=question.question_digest,
        question_seq=question.seq,
        decline_reason=decline_reason,
    )


async def open_questions(call: Call[Any, Any], run: str) -> Sequence[Question]:
    """Returns the open questions of a run."""
    return [Question.of(question) for question in await call.orchestra.questions(run)]


async def continued_run(call: Call[Any, Any], run: str) -> Run[Any]:
    """Returns a run of this process; one that waits, or that was interrupted, goes on here."""
    active = call.orchestra.active_run(run)
    return active if active is not None else await call.orchestra.resume(run, by=call.principal.subject)


async def require_run_of(call: Call[Any, Any], run: str, skill: Skill) -> RunStarted:
    """Returns the first event of a run of this skill, and of the caller's tenant. Raises `RequestError` S009 for any
    other.
    """
    start_event = await require_run(call, run)
    if start_event.workflow != skill.name:
        raise not_found("run", run[:100])
    return start_event


async def wait_until_blocked(call: Call[Any, Any], run: Run[Any]) -> None:
    """Waits until a run has ended, or waits for a person. Raises `RequestError` S010 if the server stops."""
    blocked = asyncio.ensure_future(run.wait_until_blocked())
    stopping = asyncio.ensure_future(call.services.stopping.wait())
    try:
        await asyncio.wait({blocked, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if blocked.done():
            blocked.result()
            return
        raise stop_error(run.id)
    finally:
        for task in (blocked, stopping):
            task.cancel()
        await asyncio.gather(blocked, stopping, return_exceptions=True)
