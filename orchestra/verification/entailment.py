"""V1, the evidence verifier: claims beside pieces of the evidence, and an agent that says how probable it is that these support them.

What a value claims is decided by its type: every text of it is one claim, but for quotes and expressions, which other checks judge, and
for texts that are one of a list of choices, or are called `quote` or `source`. A value that is a text is one claim, be it a quote. A null
or empty text claims nothing.

A claim is as probable as the piece that supports it best makes it, unless a piece contradicts it; a value is as probable as its weakest
claim (VERIFICATION, V1; the shape is that of MiniCheck: Tang, Laban, Durrett 2024, https://arxiv.org/abs/2404.10774).
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
"""The inputs of an agent that judges."""
NON_CLAIM_FIELDS = frozenset({EXPRESSION_FORMAT, "quote", "source"})
"""Names of fields that say what an answer rests on, as in the package's own `Citation`, and claim nothing."""
MAX_CHUNK_TOKENS = 350
"""Of a piece of evidence (VERIFICATION, V1)."""
BYTES_PER_TOKEN = 4
"""Of a word: more than one of English takes, so that a piece has rather less than 350 tokens."""
MAX_QUESTIONS = 64
"""Claims times pieces at most; a value with more is not judged by halves."""
DECISION_THRESHOLD = 0.5
"""A claim is supported from here, and contradicted above."""


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
    """What came of a question: a value, or why there is none."""

    value: Any = None
    error: str = ""


def extract_claims(value: Any, schema: Mapping[str, Any]) -> list[AnswerClaim]:
    """The texts of a value that claim something, in its order."""
    return [AnswerClaim(field.value, field.path) for field in claim_fields(value, schema)]


def claim_fields(value: Any, schema: Mapping[str, Any]) -> Iterator[ValueField]:
    """The fields of a value whose texts claim something, in its order."""
    return (field for field in iter_fields(value, schema) if _is_claim(field))


def _is_claim(field: ValueField) -> bool:
    if not isinstance(field.value, str) or not field.value.strip() or field.name in NON_CLAIM_FIELDS:
        return False
    checked_formats = (EXPRESSION_FORMAT,) if field.parent is None else (QUOTE_FORMAT, EXPRESSION_FORMAT)
    return not field.is_enum() and not any(schema.get("format") in checked_formats for schema in field.schemas)


def may_have_claims(schema: Mapping[str, Any]) -> bool:
    """Whether values of a type may claim something: whether it has a place for a text of one's own. Each part is looked at once."""
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
    """About how many tokens a text has, rather too many than too few: one for each four bytes of a word, one for each mark."""
    return sum(-(-len(word.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) for word in _WORD.findall(text))


def estimate_input_tokens(inputs: Mapping[str, Any]) -> int:
    """About how many tokens the texts have that an agent is given."""
    return sum(estimate_tokens(source.text) for source in collect_sources([*inputs.values()]))


def split_evidence(sources: Sequence[EvidenceSource], max_tokens: int = MAX_CHUNK_TOKENS) -> list[EvidenceChunk]:
    """The evidence in pieces of at most so many tokens: whole sentences as long as they fit, longer ones between words."""
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
    """The sentences of a text; those that are too long in runs of words. Without the white space around them."""
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
        for begin in range(match.start(), match.end(), max_tokens):  # a word longer than a piece is cut
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
    """What is asked of the agent: each claim beside each piece; or the verdict, where nothing need be asked or nothing can. `given_claims`
    replace the claims that the texts of the value make."""
    given_claims = extract_claims(value, schema) if given_claims is None else given_claims
    if not given_claims:
        if may_have_claims(schema):
            return Verdict(ENTAILMENT, PASS, 1.0, "nothing is claimed", deterministic=False)
        return unknown_by_model(ENTAILMENT, "the type has no text that claims anything")
    cut = split_evidence(sources)
    if not cut:
        return unknown_by_model(ENTAILMENT, "there is no evidence")
    if len(given_claims) * len(cut) > MAX_QUESTIONS:
        return unknown_by_model(
            ENTAILMENT,
            f"{len(given_claims)} claims beside {len(cut)} pieces of evidence are more than {MAX_QUESTIONS} questions",
        )
    texts = [sources[piece.source].text[piece.start : piece.end] for piece in cut]
    return tuple(CheckQuestion(agent, {CLAIM: claim.text, EVIDENCE: text}) for claim in given_claims for text in texts)


def judge_replies(
    value: Any, schema: Mapping[str, Any], sources: Sequence[EvidenceSource], replies: Sequence[JudgeReply]
) -> Verdict:
    """The verdict of an agent's replies, in the order of `build_questions`. One that is missing or makes no sense is never for a claim."""
    verdicts = claim_verdicts(extract_claims(value, schema), sources, replies)
    if not verdicts:
        # a journal that was tampered with, or evidence that is cut otherwise today
        return unknown_by_model(ENTAILMENT, "its questions were others")
    for outcome in (FAIL, UNKNOWN):
        if against := [one for one in verdicts if one.outcome == outcome]:
            return min(against, key=lambda one: one.score)
    least = min(verdicts, key=lambda one: one.score)
    return msgspec.structs.replace(least, evidence=tuple(evidence for one in verdicts for evidence in one.evidence))


def claim_verdicts(
    claims: Sequence[AnswerClaim], sources: Sequence[EvidenceSource], replies: Sequence[JudgeReply]
) -> list[Verdict]:
    """The verdict on each claim by itself; none at all where the replies are not those to its questions."""
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
            reason = f"the evidence{f' of {name}' if name else ''} contradicts {excerpt(claim.text)} (probability {refuted:.2f})"
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
    """How probable it is that the claim is supported, and that it is contradicted; or why that is not known. Of several names of one
    probability the first that is there counts."""
    if reply.error:
        return reply.error
    if not isinstance(reply.value, Mapping):
        return "the answer has no probabilities"
    found = [
        next((reply.value[name] for name in names if name in reply.value), None) for names in (SUPPORTED, CONTRADICTED)
    ]
    supported, refuted = found
    if supported is None or refuted is None:
        return "the server tells no probability of the labels, or gave them less than half of it"
    if not (is_probability(supported) and is_probability(refuted)) or supported + refuted > 1.0 + 1e-6:
        return f"{supported!r} and {refuted!r} are no probabilities"
    return float(supported), float(refuted)
