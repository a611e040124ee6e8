"""Messages as the inputs of a run: the last user message, its files, and earlier turns."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from orchestra.schema.strict_json import StrictJsonError, parse_untrusted
from orchestra.schema.types import Schema
from orchestra.server.endpoints import Call
from orchestra.server.files import DOCUMENT_KEY, resolve_files
from orchestra.server.openai_api.errors import unsupported
from orchestra.server.openai_api.models import CONVERSATION, DOCUMENT, DOCUMENTS, TEXT, TURNS, Target
from orchestra.server.problems import RequestError

USER = "user"
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
FILE_PARTS = frozenset({"file", "input_file"})
INSTRUCTION_ROLES = frozenset({"system", "developer"})
MESSAGE_ROLES = frozenset({USER, "assistant", *INSTRUCTION_ROLES})


class FileData(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a message: its content as a data URL, or the id of an uploaded file."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class ContentPart(FileData, frozen=True, kw_only=True):
    """A part of a message. The Responses API states a file in the part itself."""

    type: str
    text: str = ""
    file: FileData | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: Any = None


class Turn(msgspec.Struct, frozen=True):
    """A message whose files are separate from its text."""

    role: str
    texts: tuple[str, ...]
    files: tuple[FileData, ...]
    pointer: str

    @property
    def text(self) -> str:
        """Its text."""
        return "\n\n".join(self.texts)


class RunInputs(msgspec.Struct, frozen=True):
    """The inputs of a run, and which messages are not part of them."""

    values: dict[str, Any]
    ignored: tuple[str, ...]


def read_turn(message: Message, pointer: str) -> Turn:
    """Returns a message with its files. Raises `RequestError` S030 for a role or a part that is not supported."""
    if message.role not in MESSAGE_ROLES or message.tool_calls:
        raise unsupported(f"messages with the role {message.role[:50]!r} or tool calls are not supported", pointer,
                          "send messages of user, assistant and system")  # fmt: skip
    if not isinstance(message.content, list):
        return Turn(message.role, (message.content,) if message.content else (), (), f"{pointer}/content")
    texts, files = list[str](), list[FileData]()
    for index, part in enumerate(message.content):
        if part.type in TEXT_PARTS:
            texts.append(part.text)
        elif part.type in FILE_PARTS:
            files.append(part.file or part)
        else:
            raise unsupported(
                f"parts of the type {part.type[:50]!r} are not supported", f"{pointer}/content/{index}",
                "send text and file parts",
            )  # fmt: skip
    return Turn(message.role, tuple(texts), tuple(files), f"{pointer}/content")


async def build_inputs(
    call: Call[Any, Any], target: Target, turns: Sequence[Turn], given: Mapping[str, Any]
) -> RunInputs:
    """Returns the inputs that a conversation states for a target.

    The last user message is a JSON object of inputs, or the text of the one text input that `given` does not state.
    Its files are documents, and so are all its text parts but the last, if the target takes documents.

    Raises:
        RequestError: S031 if messages do not fit the inputs; S009 or S019 for a file.
    """
    user_turn = next((turn for turn in reversed(turns) if turn.role == USER), None)
    if user_turn is None or user_turn is not turns[-1]:
        raise RequestError("S031", "the last message is not of the user", hint='{"role": "user", "content": "..."}',
                           pointer="/messages", status=400)  # fmt: skip
    values: dict[str, Any] = await resolve_files(call, dict(given), "/orchestra/inputs")
    if (inputs := _inputs_in(user_turn.text, target)) is not None and not user_turn.files:
        values |= await resolve_files(call, inputs, user_turn.pointer)
    else:
        values |= await _read_message(call, target, user_turn, values)
    earlier = turns[:-1]
    ignored = _add_conversation(target, earlier, values)
    return RunInputs(values, ignored)


def _inputs_in(text: str, target: Target) -> dict[str, Any] | None:
    """Returns a message that is a JSON object of inputs; None for any other."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = parse_untrusted(text)
    except StrictJsonError:
        return None
    is_inputs = isinstance(value, dict) and value and value.keys() <= target.inputs.keys()
    return value if is_inputs else None


async def _read_message(
    call: Call[Any, Any], target: Target, turn: Turn, input_values: Mapping[str, Any]
) -> dict[str, Any]:
    texts = list(turn.texts)
    documents = [await _read_file(call, file, turn.pointer, number) for number, file in enumerate(turn.files, 1)]
    several, single = _free(target, DOCUMENTS, input_values), _free(target, DOCUMENT, input_values)
    if (several or single) and len(texts) > 1:
        passages = [{"source": f"part {number}", "text": text} for number, text in enumerate(texts[:-1], 1)]
        documents, texts = passages + documents, texts[-1:]
    values: dict[str, Any] = {}
    if documents:
        if len(several) == 1:
            values[several[0]] = documents
        elif len(single) == 1 and len(documents) == 1:
            values[single[0]] = documents[0]
        elif target.step is None:
            values["documents"] = documents
        else:
            raise _misfit(target, "has files, and the model does not take documents", turn.pointer)
    text_inputs = _free(target, TEXT, input_values)
    if not texts and not text_inputs:
        return values
    if len(text_inputs) != 1:
        reason = (
            "is a text, and the model takes no text" if not text_inputs else "is a text, and the model takes several"
        )
        raise _misfit(target, reason, turn.pointer)
    values[text_inputs[0]] = "\n\n".join(texts)
    return values


def _free(target: Target, value: Schema, input_values: Mapping[str, Any]) -> list[str]:
    return [name for name in target.names_taking(value) if name not in input_values]


def _misfit(target: Target, reason: str, pointer: str) -> RequestError:
    example = ", ".join(f'"{name}": ...' for name in target.inputs)
    return RequestError(
        "S031", f"the last message {reason}", hint=f"send the inputs as a JSON object: {{{example}}}", pointer=pointer,
        status=400,
    )  # fmt: skip


def _add_conversation(target: Target, earlier: Sequence[Turn], values: dict[str, Any]) -> tuple[str, ...]:
    """Adds earlier turns, if the target takes them; returns the addresses of those that are not used."""
    takes = target.step is None or target.names_taking(TURNS) == [CONVERSATION]
    turns = [turn for turn in earlier if takes and turn.role not in INSTRUCTION_ROLES]
    if turns and CONVERSATION not in values:
        values[CONVERSATION] = [{"role": turn.role, "content": turn.text} for turn in turns]
    return tuple(f"messages[{index}]" for index, turn in enumerate(earlier) if turn not in turns)


async def _read_file(call: Call[Any, Any], file: FileData, pointer: str, number: int) -> dict[str, str]:
    """Returns a file as a document."""
    if file.file_id:
        files: dict[str, str] = await resolve_files(call, {DOCUMENT_KEY: file.file_id}, pointer)
        return files
    name = file.filename or f"file {number}"
    if not file.file_data:
        raise RequestError("S031", f"{name[:100]!r} has no content", hint="file_data or file_id", pointer=pointer,
                           status=400)  # fmt: skip
    try:
        return {"source": name, "text": _decode_data(file.file_data).decode("utf-8-sig")}
    except (UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise RequestError(
            "S019", f"{name[:100]!r} is not UTF-8 text", hint="convert it to text", pointer=pointer, status=400
        ) from error


def _decode_data(data: str) -> bytes:
    """Returns the content of a data URL, or of plain base64."""
    if not data.startswith("data:"):
        return base64.b64decode(data, validate=True)
    head, comma, body = data.partition(",")
    if not comma:
        raise ValueError("the data URL has no comma")
    return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
