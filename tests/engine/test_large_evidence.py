"""Evidence of a megabyte is processed outside the event loop: other runs proceed, and the result is the same."""

from __future__ import annotations

import asyncio

import pytest

from orchestra.core.clock import SystemClock
from orchestra.core.events import OutputJudged
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers
from orchestra.verification.acceptance import HEAVY_SIZE
from tests.engine.stage import ANSWERS, play, program

LEDGER = """
input: {text: str, ledger: str}
output: ${both}
nodes:
  found: {verify: "${input.text}", checks: [numbers], against: "${input.ledger}"}
  loud: {tool: shout, with: {text: "${found}"}}
  said: {agent: writer, with: {text: "${input.text}"}, checks: ["numbers | agree(3)"], against: "${input.ledger}", otherwise: [retry]}
  both: {agent: writer, with: {text: "${loud} ${said}"}}
"""  # noqa: E501
ROWS = "account " * (HEAVY_SIZE // 8) + "20993.50"
TICKS = 20
"""Loop iterations while a ledger is processed; a blocked loop has hardly any."""


def test_large_evidence_read_in_thread_same_verdict() -> None:
    assert len(ROWS) > HEAVY_SIZE
    for seed in range(4):
        played = play(LEDGER, {"text": "it is 20993.50", "ledger": ROWS}, seed=seed, latency=(0.01, 1.0))
        assert played.outcome == ValueOutcome("<IT IS 20993.50 <it is 20993.50>>")
        assert {event.node: event.accepted for event in played.of(OutputJudged)} == {"found": True, "said": True}
        withheld = play(LEDGER, {"text": "it is 20994.50", "ledger": ROWS}, seed=seed, latency=(0.01, 1.0))
        assert isinstance(withheld.outcome, AbstainedOutcome)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_other_runs_proceed_while_ledger_is_read(cancelled: bool) -> None:
    ticks, engine = 0, Engine(SystemClock(), MemoryJournal(), SimulatedWorkers(ANSWERS))
    run = engine.start(
        program(LEDGER), RunRequest(inputs={"text": "it is 5", "ledger": "5 " * (1 << 16)}, graph="0" * 32)
    )

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1
            if cancelled and ticks == TICKS:
                run.cancel()

    ticker = asyncio.create_task(tick())
    finished = await run.wait()
    ticker.cancel()
    assert ticks >= TICKS
    assert finished.status == ("cancelled" if cancelled else "done")
    await engine.close()
