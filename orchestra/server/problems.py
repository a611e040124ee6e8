"""Errors as HTTP replies in the format of RFC 9457: status, code, place and hint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

import msgspec
from starlette.responses import Response

from orchestra.core.error_codes import LEASE_HELD, LEASE_LOST, RUN_ENDED
from orchestra.core.error_help import ErrorExplanation, load_explanations
from orchestra.core.errors import BudgetExceeded, FleetError, InputError, OrchestraError
from orchestra.journal.errors import JournalError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 5
"""`Retry-After` of a reply with the status 503."""
_STATUS: Mapping[str, int] = {
    "S001": 415,
    "S002": 422,
    "S003": 413,
    "S004": 404,
    "S005": 401,
    "S006": 403,
    "S007": 421,
    "S008": 403,
    "S009": 404,
    "S010": 503,
    "S011": 409,
    "S012": 422,
    "S013": 422,
    "S014": 408,
    "S015": 422,
    "S017": 431,
    "S018": 500,
    "S019": 422,
    "S021": 429,
    "S022": 429,
    "S024": 402,
    "S040": 400,
    LEASE_HELD: 409,
    LEASE_LOST: 409,
    RUN_ENDED: 409,
    "J023": 404,
    "J024": 409,
    "E017": 503,
    "E018": 409,
    "E019": 409,
    "E020": 404,
    "E021": 409,
    "E024": 409,
    "E025": 409,
    "E031": 409,
    "E037": 409,
    "T005": 409,
    "T009": 409,
    "C056": 409,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error. `type` is the address of its explanation."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    pointer: str
    """The place in the body, as a JSON pointer, or the name of the parameter; empty if it is not known."""
    why: str


class RequestError(InputError):
    """A request that the server refuses, with the place of the fault."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        pointer: str = "",
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, hint=hint)
        self.pointer, self.status, self.headers = pointer, status, dict(headers or {})


def not_found(kind: str, name: str) -> RequestError:
    """Returns the error for an id that does not exist, or belongs to another tenant."""
    plural = f"{kind}es" if kind.endswith("ch") else f"{kind}s"
    return RequestError("S009", f"there is no {kind} {name!r}", hint=f"list them: GET /api/{plural}")


def status_of(error: OrchestraError) -> int:
    """Returns the HTTP status of an error."""
    if isinstance(error, RequestError) and error.status is not None:
        return error.status
    if (status := _STATUS.get(error.code)) is not None:
        return status
    match error:
        case InputError():
            return 422
        case FleetError() | JournalError() | BudgetExceeded():
            return 503
        case _:
            return 500


@cache
def explanations() -> Mapping[str, ErrorExplanation]:
    """The explanations of all codes."""
    return load_explanations()


def to_problem(error: OrchestraError) -> Problem:
    """Returns an error as data."""
    explanation = explanations().get(error.code)
    return Problem(
        type=f"/api/errors/{error.code}",
        title=explanation.title if explanation is not None else error.code,
        status=status_of(error),
        detail=error.message,
        code=error.code,
        hint=error.hint,
        pointer=getattr(error, "pointer", "") or _input_pointer(error),
        why=error.why,
    )


def problem_response(error: OrchestraError) -> Response:
    """Returns the reply for an error."""
    problem = to_problem(error)
    return Response(msgspec.json.encode(problem), problem.status, error_headers(error, problem), MEDIA_TYPE)


def error_headers(error: OrchestraError, problem: Problem) -> dict[str, str]:
    """Returns the headers of the reply for an error: its own, and those that its status requires."""
    headers = dict(error.headers) if isinstance(error, RequestError) else {}
    if problem.status == 503:
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    if problem.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="orchestra"')
    return headers


_INPUT_CODES = frozenset({"E012", "E013"})
_QUOTED = re.compile(r"'([A-Za-z_]\w*)'")


def _input_pointer(error: OrchestraError) -> str:
    """Returns the input that an error of the inputs names."""
    if error.code not in _INPUT_CODES or (name := _QUOTED.search(error.message)) is None:
        return ""
    return f"/inputs/{name[1]}"


_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)
"""A fault of a field that is named in the text, and not in its place."""
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def pointer_of(message: str) -> tuple[str, str]:
    """Splits a message of msgspec into the text and the JSON pointer of its place."""
    text, _, place = message.partition(" - at `$")
    steps = [name or index for name, index in _STEP.findall(place.removesuffix("`"))]
    if (field := _FIELD.fullmatch(text)) is not None:
        steps.append(field[1])
    return text, "".join(f"/{step}" for step in steps)
