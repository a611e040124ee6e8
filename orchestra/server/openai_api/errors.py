"""Errors in the form that clients of OpenAI's API read."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestra.app.run_detail import RunAnswer
from orchestra.core.errors import OrchestraError
from orchestra.server.endpoints import JSON_TYPE
from orchestra.server.problems import Problem, RequestError, error_headers, to_problem

PREFIX: Final = "/v1/"
"""The paths of this API."""
NO_RETRY: Final = {"x-should-retry": "false"}
"""Tells OpenAI's clients not to repeat a request: the same run would fail again."""
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_NUMBER = re.compile(r"/(\d+)(?=/|$)")


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """An error. `code` is one of ours; its explanation is at `/api/errors/CODE`."""

    message: str
    type: str
    param: str | None
    """The place in the body, such as `messages[0].content`."""
    code: str
    hint: str


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a reply with an error."""

    error: ErrorBody


def is_openai_path(request: Request) -> bool:
    """Whether a request is for this API, so that its errors have this form."""
    root = request.scope.get("root_path", "")
    return request.url.path.removeprefix(root).startswith(PREFIX)


def error_reply(error: OrchestraError) -> ErrorReply:
    """Returns an error as data."""
    return _reply_of(to_problem(error))


def _reply_of(problem: Problem) -> ErrorReply:
    kind = _TYPES.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
    message = f"{problem.detail}; {problem.hint}" if problem.hint else problem.detail
    return ErrorReply(
        error=ErrorBody(
            message=message,
            type=kind,
            param=parameter_of(problem.pointer) or None,
            code=problem.code,
            hint=problem.hint,
        )
    )


def error_response(error: OrchestraError) -> Response:
    """Returns the reply for an error."""
    problem = to_problem(error)
    return Response(msgspec.json.encode(_reply_of(problem)), problem.status, error_headers(error, problem), JSON_TYPE)


def parameter_of(pointer: str) -> str:
    """Returns a JSON pointer in the notation of OpenAI: `messages[0].content`."""
    return _NUMBER.sub(r"[\1]", pointer).removeprefix("/").replace("/", ".")


def unsupported(message: str, pointer: str, hint: str) -> RequestError:
    """Returns the error for a part of a request that cannot be honoured."""
    return RequestError("S030", message, hint=hint, pointer=pointer, status=400)


def run_error(answer: RunAnswer) -> RequestError:
    """Returns the error of a run that has no output. One without capacity may be repeated; others fail again."""
    error = answer.error
    code = error.code if error is not None and error.code else "S033"
    message = error.message if error is not None else f"the run is {answer.status}"
    hint = (error.hint if error is not None else "") or f"GET /api/runs/{answer.id}"
    may_retry = code.startswith("F")
    return RequestError(
        code,
        f"run {answer.id} is {answer.status}: {message}",
        hint=hint,
        status=503 if may_retry else 422,
        headers={} if may_retry else NO_RETRY,
    )
