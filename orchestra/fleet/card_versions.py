"""Which card a call means: the current one of its name, or the one that its run began with."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.core.protocols import CallRequest

MEMO_VERSION = "2"
"""Version of what a memo keeps of an agent's answer, in its key: counted up when more is kept, so that what was kept before is asked for
again. 2: how sure the agent is, too."""


def resolve_card(call: CallRequest, cards: Mapping[str, Card], cards_by_digest: Mapping[str, Card]) -> Card | None:
    """The card of a call's name, of the call's version where it states one; None where no card has the name.

    `cards` are the current ones by name, `cards_by_digest` older ones. Raises `InputError` F221 for a version that nobody has.
    """
    card = cards.get(call.name)
    if not call.version or (card is not None and card.digest == call.version):
        return card
    older = cards_by_digest.get(call.version)
    if older is not None and older.name == call.name:
        return older
    if card is None:
        return None
    reason = f"the agent {call.name!r} is not the one that the run began with, and that one is not at hand"
    raise InputError("F221", reason, hint="orchestra runs fork")
