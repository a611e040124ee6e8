"""Resolves the card of a call: the current card of its name, or the version that its run started with."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.core.protocols import CallRequest

MEMO_VERSION = "2"
"""Version of a memo's content, part of the memo key. Increase it when a memo stores more, so that older memos are not
used. Version 2 added the confidence.
"""


def resolve_card(call: CallRequest, cards: Mapping[str, Card], cards_by_digest: Mapping[str, Card]) -> Card | None:
    """Returns the card of a call; None if no card has its name.

    Args:
        call: The call. An empty `version` means the current card.
        cards: The current cards by name.
        cards_by_digest: Older cards by digest.

    Raises:
        InputError: F221, the version is not available.
    """
    card = cards.get(call.name)
    if not call.version or (card is not None and card.digest == call.version):
        return card
    older = cards_by_digest.get(call.version)
    if older is not None and older.name == call.name:
        return older
    if card is None:
        return None
    reason = f"the agent {call.name!r} is not the one that the run began with, and that version is not available"
    raise InputError("F221", reason, hint="orchestra runs fork")
