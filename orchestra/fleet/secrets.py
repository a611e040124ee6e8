"""Secrets of a fleet: resolves the references `env:NAME` and `file:PATH` when a request is sent, and redacts keys in
responses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from orchestra.core.errors import FleetError
from orchestra.fleet.config import Endpoint, LocalServer

REDACTED = "[the key]"
"""The replacement of a key in a response."""
MIN_KEY_LENGTH = 16
"""The minimum length of a key that is redacted."""
BEARER = "Bearer "


def read_secret(reference: str, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the secret of `env:NAME` or `file:PATH`.

    Raises:
        FleetError: F105, the secret is missing.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        secret = environment.get(name, "")
    else:
        try:
            secret = Path(name).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, RuntimeError) as error:  # RuntimeError: `~` without a home directory
            raise FleetError(
                "F105", f"the secret {reference} cannot be read: {error}", hint=f"put it into {name}"
            ) from error
    if not (secret := secret.strip()):
        raise FleetError(
            "F105",
            f"the secret {reference} is empty",
            hint=f"export {name}=…" if kind == "env" else f"put it into {name}",
        )
    if not secret.isprintable():
        raise FleetError(
            "F105",
            f"the secret {reference} is not a key: it has several lines, or control characters",
            hint=f"look at {name}",
        )
    return secret


def missing_key_error(server: Endpoint | LocalServer) -> FleetError | None:
    """Returns F105 for an endpoint whose key is missing, which would fail its requests; else None."""
    try:
        if isinstance(server, Endpoint) and server.api_key:
            read_secret(server.api_key)
    except FleetError as error:
        return error
    return None


def auth_headers(key: str) -> Mapping[str, str]:
    """Returns the headers with a key; none for an empty key."""
    return {"Authorization": f"{BEARER}{key}"} if key else {}


def key_in_headers(headers: Mapping[str, str]) -> str:
    """Returns the key in headers if it is to be redacted; else an empty string."""
    key = headers.get("Authorization", "").removeprefix(BEARER)
    return key if _looks_random(key) else ""


def _looks_random(key: str) -> bool:
    """Whether a key looks random. `EMPTY`, `ollama` and `sk-no-key-required` are words for servers without keys."""
    is_mixed = any(char.isupper() for char in key) and any(char.islower() for char in key)
    return len(key) >= MIN_KEY_LENGTH and (is_mixed or any(char.isdigit() for char in key))


def redact(text: str, key: str) -> str:
    """Returns the text with the key replaced."""
    return text.replace(key, REDACTED) if key else text


def redact_bytes(data: bytes, key: str) -> bytes:
    """Returns a response with the key replaced, including its escaped forms in JSON."""
    if not key:
        return data
    if b"\\" not in data or (b"\\u" not in data and not any(char in key for char in '"\\/')):
        return data.replace(key.encode(), REDACTED.encode())
    return re.sub(b"".join(_json_pattern(char) for char in key), REDACTED.encode(), data)


def _json_pattern(char: str) -> bytes:
    """Returns a pattern of the JSON forms of a character: unescaped, after a backslash, or by its code."""
    units = char.encode("utf-16-be").hex()
    numbers = "".join(rf"\\u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4))
    after = r"\\?" if char in '"\\/' else ""
    return rf"(?:{after}{re.escape(char)}|{numbers})".encode()


def contains_split_key(received: bytes, key: str) -> bool:
    """Whether a response contains the key once the texts at one JSON path are joined: stream chunks,
    reasoning, tokens.
    """
    if not key:
        return False
    document_bytes = received.removeprefix(b"\xef\xbb\xbf").lstrip()
    documents = (
        [document_bytes]
        if document_bytes[:1] == b"{"
        else [line[5:] for line in document_bytes.splitlines() if line.startswith(b"data:")]
    )
    texts: dict[str, list[str]] = {}
    for document in documents:
        try:
            content = msgspec.json.decode(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        for place, text in _iter_texts(content):
            texts.setdefault(place, []).append(text)
    return any(key in "".join(pieces) for pieces in texts.values())


def _iter_texts(document: Any) -> Iterator[tuple[str, str]]:
    """Yields the texts of a JSON value in order, each with its path."""
    stack = [("", document)]
    while stack:
        place, value = stack.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, dict):
            stack += [(f"{place}/{name}", value[name]) for name in reversed(value)]
        elif isinstance(value, list):
            stack += [(place, item) for item in reversed(value)]


class StreamRedactor:
    """Redacts the key in streamed text, also if it is split between chunks."""

    def __init__(self, on_text: Callable[[str], None], key: str) -> None:
        self._on_text, self._key, self._pending = on_text, key, ""

    def __call__(self, text: str) -> None:
        """Returns the text that can be released. The start of a possible key is held back."""
        buffer = redact(self._pending + text, self._key)
        max_length = min(len(buffer), len(self._key) - 1)
        partial_length = next(
            (length for length in range(max_length, 0, -1) if self._key.startswith(buffer[-length:])), 0
        )
        self._pending = buffer[len(buffer) - partial_length :]
        if output := buffer[: len(buffer) - partial_length]:
            self._on_text(output)

    def end(self) -> None:
        """Returns the held back text at the end of the stream."""
        if self._pending:
            self._on_text(self._pending)
        self._pending = ""
