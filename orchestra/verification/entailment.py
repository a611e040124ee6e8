"""V1, entailment: an agent estimates the probability that chunks of the evidence support the claims of a value.

The type of a value determines its claims: every text is one claim, except quotes and expressions, which other checks
judge, enum values, and fields named `quote` or `source`. A value that is itself a text is one claim, even if it is a
quote. A null or empty text claims nothing.

The probability of a claim is that of its best supporting chunk, unless a chunk contradicts it. The probability of a
value is that of its weakest claim (VERIFICATION, V1; the design is that of MiniCheck: Tang, Laban, Durrett 2024,
https://arxiv.org/abs/2404.10774).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from orchestra.core.events import CheckQuestion, Verdict
from orchestra.core.outcomes import Evidence
from orchestra.core.protocols import EvidenceSource, collect_sources
from orchestra.schema.fields import (
    CONTRADICTED,
    EXPRESSION_FORMAT,
    QUOTE_FORMAT,
    SUPPORTED,
    ValueField,
    expand_schema,
    is_probability,
    iter_fields,
)
from orchestra.verification.verdict import FAIL, PASS, UNKNOWN, excerpt, unknown_by_model

ENTAILMENT = "entailment"
CLAIM, EVIDENCE = "claim", "evidence"
"""Inputs of a judging agent."""
NON_CLAIM_FIELDS = frozenset({EXPRESSION_FORMAT, "quote", "source"})
"""Names of fields that state a source, as in the `Citation` of this package, and claim nothing."""
MAX_CHUNK_TOKENS = 350
"""Maximum tokens of an evidence chunk (VERIFICATION, V1)."""
BYTES_PER_TOKEN = 4
"""Bytes of a word per token. English needs more, so a chunk has rather fewer than 350 tokens."""
MAX_QUESTIONS = 64
"""Maximum of claims times chunks. A value with more is not judged at all."""
DECISION_THRESHOLD = 0.5
"""A claim is supported from this probability on, and contradicted above it."""


class AnswerClaim(msgspec.Struct, frozen=True):
    """A text of a value, and its path."""

    text: str
    path: str


class EvidenceChunk(msgspec.Struct, frozen=True):
    """A part of the evidence: `sources[source].text[start:end]`."""

    source: int
    start: int
    end: int


class JudgeReply(msgspec.Struct, frozen=True):
    """The reply to a question: a value, or an error."""

    value: Any = None
    error: str = ""


def extract_claims(value: Any, schema: Mapping[str, Any]) -> list[AnswerClaim]:
    """Claims of a value, in order."""
    return [AnswerClaim(field.value, field.path) for field in claim_fields(value, schema)]


def claim_fields(value: Any, schema: Mapping[str, Any]) -> Iterator[ValueField]:
    """Fields of a value whose texts are claims, in order."""
    return (field for field in iter_fields(value, schema) if _is_claim(field))


def _is_claim(field: ValueField) -> bool:
    if not isinstance(field.value, str) or not field.value.strip() or field.name in NON_CLAIM_FIELDS:
        return False
    checked_formats = (EXPRESSION_FORMAT,) if field.parent is None else (QUOTE_FORMAT, EXPRESSION_FORMAT)
    return not field.is_enum() and not any(schema.get("format") in checked_formats for schema in field.schemas)


def may_have_claims(schema: Mapping[str, Any]) -> bool:
    """Whether values of a type may have claims: whether the type has a free text. Visits each subschema once."""
    line: list[Mapping[str, Any]] = [schema]
    seen: set[int] = set()
    if any(
        part.get("type") == "string" and part.get("format") == QUOTE_FORMAT for part in expand_schema(schema, schema)
    ):
        return True
    while line:
        for part in expand_schema(line.pop(), schema):
            if id(part) in seen:
                continue
            seen.add(id(part))
            kinds = part.get("type", ())
            open_ = not part.keys() & {"type", "properties", "items", "enum", "const"}
            if open_ or (
                "string" in ([kinds] if isinstance(kinds, str) else kinds)
                and part.get("format") not in (QUOTE_FORMAT, EXPRESSION_FORMAT)
                and not part.keys() & {"enum", "const"}
            ):
                return True
            line += [
                inner
                for name, inner in part.get("properties", {}).items()
                if name not in NON_CLAIM_FIELDS and isinstance(inner, Mapping)
            ]
            line += [inner for key in ("items", "additionalProperties") if isinstance(inner := part.get(key), Mapping)]
            line += [inner for inner in part.get("prefixItems", ()) if isinstance(inner, Mapping)]
    return False


_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|\n+")
_WORD = re.compile(r"\w+|[^\w\s]")


def estimate_tokens(text: str) -> int:
    """Upper estimate of the tokens of a text: one for each four bytes of a word, one for each punctuation mark."""
    return sum(-(-len(word.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) for word in _WORD.findall(text))


def estimate_input_tokens(inputs: Mapping[str, Any]) -> int:
    """Estimate of the tokens of an agent's inputs."""
    return sum(estimate_tokens(source.text) for source in collect_sources([*inputs.values()]))


def split_evidence(sources: Sequence[EvidenceSource], max_tokens: int = MAX_CHUNK_TOKENS) -> list[EvidenceChunk]:
    """Splits the evidence into chunks of at most this many tokens: whole sentences if they fit, else at word
    boundaries.
    """
    found: list[EvidenceChunk] = []
    for index, source in enumerate(sources):
        start = end = length = 0
        for low, high in _sentence_spans(source.text, max_tokens):
            size = estimate_tokens(source.text[low:high])
            if length and length + size > max_tokens:
                found.append(EvidenceChunk(index, start, end))
                length = 0
            start, end, length = (low if not length else start), high, length + size
        if length:
            found.append(EvidenceChunk(index, start, end))
    return found


def _sentence_spans(text: str, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of a text without surrounding white space. Sentences that are too long are split into runs
    of words.
    """
    at = 0
    for match in (*_SENTENCE.finditer(text), None):
        stop = len(text) if match is None else match.start()
        sentence = text[at:stop]
        if sentence.strip():
            low, high = at + len(sentence) - len(sentence.lstrip()), at + len(sentence.rstrip())
            yield from (
                [(low, high)]
                if estimate_tokens(text[low:high]) <= max_tokens
                else _word_spans(text, low, high, max_tokens)
            )
        at = stop if match is None else match.end()


def _word_spans(text: str, low: int, high: int, max_tokens: int) -> Iterator[tuple[int, int]]:
    start = end = -1
    length = 0
    for match in _WORD.finditer(text, low, high):
        for begin in range(match.start(), match.end(), max_tokens):  # a word longer than a chunk is cut
            stop = min(match.end(), begin + max_tokens)
            size = estimate_tokens(text[begin:stop])
            if length and length + size > max_tokens:
                yield start, end
                length = 0
            start, end, length = (begin if not length else start), stop, length + size
    if length:
        yield start, end


def build_questions(
    value: Any,
    schema: Mapping[str, Any],
    sources: Sequence[EvidenceSource],
    agent: str,
    given_claims: Sequence[AnswerClaim] | None = None,
) -> tuple[CheckQuestion, ...] | Verdict:
    """Returns the questions, one for each claim and chunk, or a verdict if none can or need be asked.

    Args:
        given_claims: Claims to use in place of those that the texts of the value make.
    """
    given_claims = extract_claims(value, schema) if given_claims is None else given_claims
    if not given_claims:
        if may_have_claims(schema):
            return Verdict(ENTAILMENT, PASS, 1.0, "it has no claims", deterministic=False)
        return unknown_by_model(ENTAILMENT, "the type has no text that can be a claim")
    cut = split_evidence(sources)
    if not cut:
        return unknown_by_model(ENTAILMENT, "there is no evidence")
    if len(given_claims) * len(cut) > MAX_QUESTIONS:
        return unknown_by_model(
            ENTAILMENT,
            f"{len(given_claims)} claims times {len(cut)} chunks of evidence exceed {MAX_QUESTIONS} questions",
        )
    texts = [sources[piece.source].text[piece.start : piece.end] for piece in cut]
    return tuple(CheckQuestion(agent, {CLAIM: claim.text, EVIDENCE: text}) for claim in given_claims for text in texts)


def judge_replies(
    value: Any, schema: Mapping[str, Any], sources: Sequence[EvidenceSource], replies: Sequence[JudgeReply]
) -> Verdict:
    """Returns the verdict on the replies, in the order of `build_questions`. A missing or malformed reply never
    supports a claim.
    """
    verdicts = claim_verdicts(extract_claims(value, schema), sources, replies)
    if not verdicts:
        # the journal was modified, or the evidence is split differently now
        return unknown_by_model(ENTAILMENT, "the replies do not match its questions")
    for outcome in (FAIL, UNKNOWN):
        if against := [one for one in verdicts if one.outcome == outcome]:
            return min(against, key=lambda one: one.score)
    least = min(verdicts, key=lambda one: one.score)
    return msgspec.structs.replace(least, evidence=tuple(evidence for one in verdicts for evidence in one.evidence))


def claim_verdicts(
    claims: Sequence[AnswerClaim], sources: Sequence[EvidenceSource], replies: Sequence[JudgeReply]
) -> list[Verdict]:
    """Returns a verdict for each claim; an empty list if the replies do not match its questions."""
    cut = split_evidence(sources)
    if len(replies) != len(claims) * len(cut):
        return []
    heard = (replies[index * len(cut) : (index + 1) * len(cut)] for index in range(len(claims)))
    return [
        _claim_verdict(claim, cut, sources, [probabilities(reply) for reply in some])
        for claim, some in zip(claims, heard, strict=True)
    ]


def _claim_verdict(
    claim: AnswerClaim,
    cut: Sequence[EvidenceChunk],
    sources: Sequence[EvidenceSource],
    heard: Sequence[tuple[float, float] | str],
) -> Verdict:
    known = [(chance, piece) for chance, piece in zip(heard, cut, strict=True) if not isinstance(chance, str)]
    for (_, refuted), piece in known:
        if refuted > DECISION_THRESHOLD:
            name = sources[piece.source].name
            origin = f" of {name}" if name else ""
            reason = f"the evidence{origin} contradicts {excerpt(claim.text)} (probability {refuted:.2f})"
            return Verdict(ENTAILMENT, FAIL, 0.0, reason, deterministic=False)
    if faults := [chance for chance in heard if isinstance(chance, str)]:
        return unknown_by_model(ENTAILMENT, f"{excerpt(claim.text)}: {faults[0]}")
    (score, _), best = max(known, key=lambda one: one[0][0])
    if score < DECISION_THRESHOLD:
        return Verdict(
            ENTAILMENT, FAIL, score, f"the evidence does not state {excerpt(claim.text)}", deterministic=False
        )
    source = sources[best.source]
    rests = Evidence(ENTAILMENT, source.text[best.start : best.end], source.name, best.start, best.end, claim.path)
    return Verdict(ENTAILMENT, PASS, score, deterministic=False, evidence=(rests,))


def probabilities(reply: JudgeReply) -> tuple[float, float] | str:
    """Returns the probabilities of support and of contradiction, or why they are unknown. Of alternative names the
    first present one counts.
    """
    if reply.error:
        return reply.error
    if not isinstance(reply.value, Mapping):
        return "the answer has no probabilities"
    found = [
        next((reply.value[name] for name in names if name in reply.value), None) for names in (SUPPORTED, CONTRADICTED)
    ]
    supported, refuted = found
    if supported is None or refuted is None:
        return "the server returned no probabilities of the labels, or less than half for all of them"
    if not (is_probability(supported) and is_probability(refuted)) or supported + refuted > 1.0 + 1e-6:
        return f"{supported!r} and {refuted!r} are not probabilities"
    return float(supported), float(refuted)
