"""E-mail: its header, its text, and the text of what is attached to it."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import EmailMessage, MIMEPart
from pathlib import Path

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.errors import damaged_file
from orchestra.documents.formats.markup import add_markup

_HEADER = ("From", "To", "Cc", "Date", "Subject")
MAX_ATTACHED_MESSAGES = 20


def read(path: Path, source: str) -> FileContent:
    """Reads a message (RFC 5322, MIME). Attached texts and messages follow it; other attachments are named.

    Raises:
        DocumentError: D003 for a file that is no message.
    """
    builder = DocumentBuilder(source)
    message = message_from_bytes(path.read_bytes(), policy=policy.default)
    if not isinstance(message, EmailMessage) or not any(name in message for name in _HEADER):
        raise damaged_file(source, "EML", "it has no header of a message")
    _add_message(builder, message, "", source, MAX_ATTACHED_MESSAGES)
    return builder.content()


def _add_message(
    builder: DocumentBuilder, message: EmailMessage, place: str, source: str, attachment_limit: int
) -> None:
    try:
        lines = [(name, " ".join(str(message[name]).split())) for name in _HEADER if message[name]]
        for at, (name, text) in enumerate(lines):
            builder.add(f"{name}: {text}", f"{place}{name}", joined=at > 0)
        _add_body(builder, message, f"{place}message")
        for number, part in enumerate(message.iter_attachments(), 1):
            _add_attachment(builder, part, f"{place}attachment {number}", source, attachment_limit)
    except (MessageError, LookupError, ValueError, AttributeError, TypeError, IndexError) as error:
        # The parser of the standard library raises any of these for headers and parts that break the rules.
        raise damaged_file(source, "EML", error) from error


def _add_body(builder: DocumentBuilder, message: EmailMessage, place: str) -> None:
    body = message.get_body(("plain", "html"))
    if body is None:
        return
    text = _content(body)
    if body.get_content_type() == "text/html":
        add_markup(text, builder, place)
    else:
        builder.add(text, place)


def _add_attachment(builder: DocumentBuilder, part: object, place: str, source: str, attachment_limit: int) -> None:
    if not isinstance(part, EmailMessage):
        return
    name = part.get_filename() or ""
    location = f"{place} ({name})" if name else place
    if part.get_content_type() == "message/rfc822" and attachment_limit > 0:
        inner = part.get_payload(0)
        if isinstance(inner, EmailMessage):
            _add_message(builder, inner, f"{location}, ", source, attachment_limit - 1)
    elif part.get_content_type() == "text/html":
        add_markup(_content(part), builder, location)
    elif part.get_content_maintype() == "text":
        builder.add(_content(part), location)
    else:
        builder.add(f"Attachment: {name or part.get_content_type()}", location)


def _content(part: MIMEPart) -> str:
    """Returns the text of a part; bytes that its character set does not have become marks."""
    try:
        content = part.get_content()
    except (LookupError, KeyError):  # an unknown character set or type
        payload = part.get_payload(decode=True)
        content = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
    return content if isinstance(content, str) else ""
