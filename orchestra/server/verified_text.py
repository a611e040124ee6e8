"""The verified text of a run: the sentences of its answer whose checks have passed, and the number of the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from orchestra.app.claims.claims import OutputClaim, is_supported
from orchestra.app.run_detail import RunAnswer
from orchestra.verification.answer_parts import sentence_spans


class AnswerSentence(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of the answer, in the mode `verified`."""

    path: str
    """The part of the output that contains it."""
    start: int
    """Its place in the text of this part."""
    text: str
    """A part that is no text, such as a number, is JSON."""
    verified: bool
    """Whether checks support it. A sentence that a person gave is sent too, and is not verified."""
    person: str
    nodes: tuple[str, ...]
    checks: tuple[str, ...]
    """The checks that passed."""
    score: float | None


class VerifiedTextEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the verified text of a run."""

    run: str
    status: str
    sentences: int
    """Sentences that were sent."""
    withheld: int
    """Sentences of the answer that no check supports. They are not sent."""
    withheld_paths: tuple[str, ...]
    """The parts of the output that contain them."""


def claim_sentences(claims: Iterable[OutputClaim]) -> Iterator[AnswerSentence]:
    """Yields the sentences of claims that checks support, or that a person gave."""
    for claim in claims:
        if is_supported(claim) or claim.person:
            for start, text in _sentences(claim):
                yield AnswerSentence(
                    path=claim.path,
                    start=start,
                    text=text,
                    verified=is_supported(claim),
                    person=claim.person,
                    nodes=claim.nodes,
                    checks=tuple(
                        dict.fromkeys(verdict.check for verdict in claim.verdicts if verdict.outcome == "pass")
                    ),
                    score=claim.score,
                )


def verified_text_end(answer: RunAnswer, sent: int) -> VerifiedTextEnd:
    """Returns the end of the verified text of a run that has ended."""
    withheld = [claim for claim in answer.claims if is_withheld(claim)]
    return VerifiedTextEnd(
        run=answer.id,
        status=answer.status,
        sentences=sent,
        withheld=sum(len(_sentences(claim)) for claim in withheld),
        withheld_paths=tuple(claim.path for claim in withheld),
    )


def is_withheld(claim: OutputClaim) -> bool:
    """Whether neither a check nor a person supports a claim."""
    return not (is_supported(claim) or claim.person)


def _sentences(claim: OutputClaim) -> list[tuple[int, str]]:
    """Returns the sentences of a claim with their places."""
    text = claim.value if isinstance(claim.value, str) else msgspec.json.encode(claim.value).decode()
    spans = list(sentence_spans(text)) if isinstance(claim.value, str) else []
    return [(start, text[start:end]) for start, end in spans] or [(0, text)]
