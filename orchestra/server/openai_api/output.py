"""The output of a run as the text of a message, with its evidence in the field `orchestra`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from orchestra.app.claims.claims import OutputClaim
from orchestra.app.run_detail import Guarantee, Question, RunAnswer, UsageTotal, Withheld
from orchestra.schema.content import is_cell, is_citation
from orchestra.schema.fields import (
    EXPRESSION_FORMAT,
    SCORE_FIELDS,
    ValueField,
    expand_schema,
    fields_with_format,
    is_probability,
)
from orchestra.schema.types import Schema
from orchestra.server.openai_api.errors import run_error
from orchestra.server.verified_text import is_withheld
from orchestra.verification.answer_parts import sentence_spans

NO_ANSWER: Final = "No answer was found."
"""The text of an output that is null: the given documents do not contain the answer."""
WITHHELD: Final = "The answer is withheld: its checks did not accept it."
UNSUPPORTED: Final = "The answer is withheld: no check supports it."
"""The text of an accepted answer that no check supports, if only verified text is wanted."""
_QUOTE = "quote"


class OrchestraExtension(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence and verdicts of a message: the field `orchestra` of a reply."""

    run: str
    status: str
    output: Any
    """The whole output, of which the message may be a part."""
    confidence: float | None
    withheld: Withheld | None
    supported: int
    claims: tuple[OutputClaim, ...]
    dropped: tuple[OutputClaim, ...]
    left_out: dict[str, str]
    guarantees: tuple[Guarantee, ...]
    questions: tuple[Question, ...]
    usage: UsageTotal
    ignored: tuple[str, ...]
    """Parts of the request without effect."""


class MessageText(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a message: `refusal` says why there is no answer."""

    content: str | None
    refusal: str | None = None
    is_json: bool = False

    def pieces(self) -> Iterator[str]:
        """Yields the content sentence by sentence; JSON in one piece."""
        text = self.content or ""
        if self.is_json:
            yield text
            return
        spans = list(sentence_spans(text))
        for start, end in spans:
            yield text[start:end]
        if not spans and text:
            yield text


def extension_of(answer: RunAnswer, ignored: Sequence[str]) -> OrchestraExtension:
    """Returns the evidence and verdicts of the message of a run."""
    shared = set(OrchestraExtension.__struct_fields__) & set(RunAnswer.__struct_fields__)
    return OrchestraExtension(
        run=answer.id, ignored=tuple(ignored), **{name: getattr(answer, name) for name in sorted(shared)}
    )


def message_text(answer: RunAnswer, schema: Schema, *, structured: bool) -> MessageText:
    """Returns the text of a run that has ended, or waits for a person.

    A withheld answer is a refusal: OpenAI's clients expect a message without valid content in this field. Without a
    wanted format the same words are the content, since chat pages show only that.

    Args:
        answer: The run.
        schema: The type of its output.
        structured: Whether the client wants JSON.

    Raises:
        RequestError: The run has failed, or was cancelled.
    """
    match answer.status:
        case "done":
            return _output_text(answer.output, schema, structured=structured)
        case "abstained" if answer.withheld is not None:
            reason = WITHHELD  # The reason of the checks may quote what they rejected; it is in the extension.
        case "waiting":
            reason = "\n".join(map(_question_text, answer.questions))
        case _:
            raise run_error(answer)
    return MessageText(content=None if structured else reason, refusal=reason)


def without_unsupported(text: MessageText, answer: RunAnswer, *, structured: bool) -> MessageText:
    """Returns the text of a message, or a refusal if neither a check nor a person supports a part of it."""
    withheld = [claim for claim in answer.claims if is_withheld(claim)]
    if any(text.is_json or claim.value == text.content for claim in withheld):
        return MessageText(content=None if structured else UNSUPPORTED, refusal=UNSUPPORTED)
    return text


def _question_text(question: Question) -> str:
    options = f" ({', '.join(question.options)})" if question.options else ""
    return f"{question.question}{options}"


def _output_text(value: Any, schema: Schema, *, structured: bool) -> MessageText:
    if not structured:
        shown_part = _shown_part(value, schema)
        if shown_part is None:
            return MessageText(content=NO_ANSWER)
        if isinstance(shown_part, str):
            return MessageText(content=shown_part)
        value = shown_part
    return MessageText(content=msgspec.json.encode(value).decode(), is_json=True)


def _shown_part(value: Any, schema: Schema) -> Any:
    """Returns the only part of a record that is no evidence and no score, or the whole value."""
    if not isinstance(value, Mapping):
        return value
    parts = {name: part for name, part in value.items() if not _is_evidence(name, part)}
    if len(parts) > 1:
        quotes = fields_with_format(ValueField("", value, expand_schema(schema, schema)), schema, _QUOTE)
        parts = {name: part for name, part in parts.items() if name not in quotes} or parts
    (only,) = parts.values() if len(parts) == 1 else (value,)
    return only if only is None or isinstance(only, str) else value


def _is_evidence(name: str, part: Any) -> bool:
    if isinstance(part, list):
        return all(is_citation(item) or is_cell(item) for item in part)
    is_score = name in SCORE_FIELDS and is_probability(part)
    return is_score or name == EXPRESSION_FORMAT or is_citation(part) or is_cell(part)
