"""Errors of A2A: numbers of JSON-RPC with our codes and hints in their details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.server.agent_protocols.replies import error_words
from orchestra.server.problems import RequestError, pointer_of, status_of

T = TypeVar("T")
_ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
TASK_NOT_FOUND: Final = -32001
TASK_NOT_CANCELABLE: Final = -32002
UNSUPPORTED_OPERATION: Final = -32004
CONTENT_NOT_SUPPORTED: Final = -32005
VERSION_NOT_SUPPORTED: Final = -32009
_REASONS: Final[Mapping[int, str]] = {
    TASK_NOT_FOUND: "TASK_NOT_FOUND",
    TASK_NOT_CANCELABLE: "TASK_NOT_CANCELABLE",
    UNSUPPORTED_OPERATION: "UNSUPPORTED_OPERATION",
    CONTENT_NOT_SUPPORTED: "CONTENT_TYPE_NOT_SUPPORTED",
    VERSION_NOT_SUPPORTED: "VERSION_NOT_SUPPORTED",
}


class RpcError(RequestError):
    """An error with its number in JSON-RPC."""

    def __init__(self, number: int, code: str, message: str, *, hint: str = "", pointer: str = "") -> None:
        super().__init__(code, message, hint=hint, pointer=pointer)
        self.number = number


def convert_params(value: Any, wanted: type[T], number: int = INVALID_PARAMS) -> T:
    """Returns the parameters of a method as their type. Raises `RpcError`, with this number."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        text, place = pointer_of(str(error))
        raise RpcError(number, "S002", text, hint="https://a2a-protocol.org", pointer=place) from error


def error_data(error: OrchestraError) -> dict[str, Any]:
    """Returns an error as JSON-RPC states it, with our code and hint in its details."""
    if isinstance(error, RpcError):
        number = error.number
    else:
        number = INVALID_PARAMS if status_of(error) < 500 else INTERNAL_ERROR
    metadata = {"code": error.code, "hint": error.hint, "pointer": getattr(error, "pointer", "")}
    details = {
        "@type": _ERROR_INFO, "reason": _REASONS.get(number, error.code), "domain": "a2a-protocol.org",
        "metadata": metadata,
    }  # fmt: skip
    return {"code": number, "message": error_words(error), "data": [details]}
