"""Secrets of a fleet: what the references `env:NAME` and `file:PATH` stand for, read in the moment they are sent, and hidden where a server
says them again."""

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
"""What stands in the place of a key that a server said again."""
MIN_KEY_LENGTH = 16
"""Characters of a key at least that is looked for."""
BEARER = "Bearer "


def read_secret(reference: str, environment: Mapping[str, str] = os.environ) -> str:
    """What `env:NAME` or `file:PATH` stands for. Raises `FleetError` F105 where nothing is there."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        found = environment.get(name, "")
    else:
        try:
            found = Path(name).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, RuntimeError) as error:  # the last of `~` where there is no home
            raise FleetError(
                "F105", f"the secret {reference} cannot be read: {error}", hint=f"put it into {name}"
            ) from error
    if not (found := found.strip()):
        raise FleetError(
            "F105",
            f"the secret {reference} is empty",
            hint=f"export {name}=…" if kind == "env" else f"put it into {name}",
        )
    if not found.isprintable():
        raise FleetError(
            "F105",
            f"the secret {reference} is no key: it has several lines, or control characters",
            hint=f"look at {name}",
        )
    return found


def missing_key_error(server: Endpoint | LocalServer) -> FleetError | None:
    """F105 for an endpoint whose key is not there now: its requests would fail by that."""
    try:
        if isinstance(server, Endpoint) and server.api_key:
            read_secret(server.api_key)
    except FleetError as error:
        return error
    return None


def auth_headers(key: str) -> Mapping[str, str]:
    """The headers that send a key; none for an empty one."""
    return {"Authorization": f"{BEARER}{key}"} if key else {}


def key_in_headers(headers: Mapping[str, str]) -> str:
    """The key that headers send, if it is one to hide; else empty."""
    key = headers.get("Authorization", "").removeprefix(BEARER)
    return key if _looks_random(key) else ""


def _looks_random(key: str) -> bool:
    """Whether a key looks like one: `EMPTY`, `ollama` and `sk-no-key-required` are words, which servers without keys are sent."""
    mixed = any(char.isupper() for char in key) and any(char.islower() for char in key)
    return len(key) >= MIN_KEY_LENGTH and (mixed or any(char.isdigit() for char in key))


def redact(text: str, key: str) -> str:
    """A text without the key."""
    return text.replace(key, REDACTED) if key else text


def redact_bytes(data: bytes, key: str) -> bytes:
    """What a server answered, without the key, also where JSON writes it otherwise."""
    if not key:
        return data
    if b"\\" not in data or (b"\\u" not in data and not any(char in key for char in '"\\/')):
        return data.replace(key.encode(), REDACTED.encode())
    return re.sub(b"".join(_json_pattern(char) for char in key), REDACTED.encode(), data)


def _json_pattern(char: str) -> bytes:
    """A pattern of what JSON writes for a character: as it is, after a backslash, or by its number."""
    units = char.encode("utf-16-be").hex()
    numbers = "".join(rf"\\u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4))
    after = r"\\?" if char in '"\\/' else ""
    return rf"(?:{after}{re.escape(char)}|{numbers})".encode()


def contains_split_key(received: bytes, key: str) -> bool:
    """Whether an answer says the key once the texts at one place of it are put together: pieces of a stream, thoughts, tokens."""
    if not key:
        return False
    one = received.removeprefix(b"\xef\xbb\xbf").lstrip()
    documents = [one] if one[:1] == b"{" else [line[5:] for line in one.splitlines() if line.startswith(b"data:")]
    texts: dict[str, list[str]] = {}
    for document in documents:
        try:
            found = msgspec.json.decode(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        for place, text in _iter_texts(found):
            texts.setdefault(place, []).append(text)
    return any(key in "".join(pieces) for pieces in texts.values())


def _iter_texts(document: Any) -> Iterator[tuple[str, str]]:
    """The texts of a JSON value, in their order, each with the keys that lead to it."""
    left = [("", document)]
    while left:
        place, value = left.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, dict):
            left += [(f"{place}/{name}", value[name]) for name in reversed(value)]
        elif isinstance(value, list):
            left += [(place, one) for one in reversed(value)]


class StreamRedactor:
    """Text on its way to whoever reads along, without the key, though it may come in pieces."""

    def __init__(self, on_text: Callable[[str], None], key: str) -> None:
        self._on_text, self._key, self._pending = on_text, key, ""

    def __call__(self, text: str) -> None:
        """The next piece; what may begin the key is held back."""
        whole = redact(self._pending + text, self._key)
        most = min(len(whole), len(self._key) - 1)
        held = next((length for length in range(most, 0, -1) if self._key.startswith(whole[-length:])), 0)
        self._pending = whole[len(whole) - held :]
        if said := whole[: len(whole) - held]:
            self._on_text(said)

    def end(self) -> None:
        """Nothing more comes: what was held back is no key."""
        if self._pending:
            self._on_text(self._pending)
        self._pending = ""
