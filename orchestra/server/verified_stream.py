"""The stream of the verified text of a run: each sentence of the answer when its node is accepted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import msgspec

from orchestra.app.claims.claims import awaited_nodes, extract_accepted_claims
from orchestra.app.run_detail import RunAnswer
from orchestra.app.snapshot_store import stored_workflows
from orchestra.core.events import Event, RunFinished, RunStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.server.services import Services
from orchestra.server.streams import Position, frame, outcome_of, run_events
from orchestra.server.verified_text import AnswerSentence, claim_sentences, verified_text_end


async def verified_frames(services: Services, run: str, position: Position) -> AsyncGenerator[bytes, None]:
    """Yields the sentences of the answer whose checks have passed, and the number of the others at the end.

    A sentence is sent when its node is accepted, if the output passes the value of the node on unchanged; otherwise
    when the run ends. The id of a sentence is the number of that event with the number of the sentence in it. Sentences
    before the position are found again from the first event on, so that none is sent twice, in any process.
    """
    sentences = _Sentences(services)
    async with aclosing(run_events(services, run, 0)) as events:
        async for event in events:
            answer = await services.answer(run) if isinstance(event, RunFinished) else None
            for number, sentence in enumerate(await sentences.new_ones(event, answer), 1):
                if (event.seq, number) > (position.after + 1, position.parts):
                    yield frame("sentence", msgspec.json.encode(sentence), f"{event.seq}.{number}")
            if answer is not None and event.seq > position.after:
                yield frame("end", msgspec.json.encode(verified_text_end(answer, sentences.count)), event.seq)


class _Sentences:
    """The sentences that are known after each event of a run."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._workflows: dict[str, bytes] = {}
        self._awaited = frozenset[str]()
        self._events = list[Event]()
        """The events so far, if sentences can become known before the end."""
        self._known = set[tuple[str, int, str]]()

    @property
    def count(self) -> int:
        """The number of sentences so far."""
        return len(self._known)

    async def new_ones(self, event: Event, answer: RunAnswer | None) -> list[AnswerSentence]:
        """Returns the sentences that an event makes known. `answer` is that of a run which the event ends. The events
        are those of the run from its first one on, each once.
        """
        if answer is not None:
            return self._add(claim_sentences(answer.claims))
        if isinstance(event, RunStarted):
            self._workflows = await stored_workflows(self._services.orchestra.journal, event)
            self._awaited = awaited_nodes(self._workflows.get("", b""))
        if self._awaited:
            self._events.append(event)
        outcome = outcome_of(event)
        if outcome is None or outcome[0] not in self._awaited or not isinstance(outcome[1], ValueOutcome):
            return []
        return self._add(claim_sentences(extract_accepted_claims(self._events, self._workflows)))

    def _add(self, sentences: Iterable[AnswerSentence]) -> list[AnswerSentence]:
        added = list[AnswerSentence]()
        for sentence in sentences:
            key = sentence.path, sentence.start, sentence.text
            if key not in self._known:
                self._known.add(key)
                added.append(sentence)
        return added
