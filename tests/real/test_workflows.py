"""Complete runs on the real fleet through `Orchestra`: answers, quotes, journals, cancellation and restarts."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestra import Answer, Document, Orchestra, agent, answered_by_model
from orchestra.core.events import AttemptFinished, AttemptStarted
from orchestra.core.settings import Settings
from orchestra.fleet.config import FleetConfig
from orchestra.workflows.python.steps import Agent

pytestmark = pytest.mark.real
AGENTS = Path(__file__).resolve().parents[2] / "agents"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "documents"


@agent(prompt="Write the numbers from 1 to {{ most }} in words, one on each line.", max_output=300)
def counting(most: int) -> str:
    """Counts."""
    return answered_by_model()


@pytest.fixture
def documents() -> list[Document]:
    return [Document(source=path.name, text=path.read_text("utf-8")) for path in sorted(EXAMPLES.glob("*.txt"))]


@pytest.fixture
def question() -> str:
    return str(json.loads((EXAMPLES / "questions.json").read_text("utf-8"))[0]["question"])


@asynccontextmanager
async def opened(laptop: FleetConfig, folder: Path) -> AsyncIterator[Orchestra]:
    settings = Settings.load({"fleet": laptop.name, "journal": str(folder / "journal.db")}, start=folder)
    async with Orchestra.open(settings, fleet="adopt") as orchestra:
        yield orchestra


async def eventually(orchestra: Orchestra, busy: int) -> None:
    async with asyncio.timeout(60):
        while True:
            status = await orchestra.fleet_status()
            if status.servers[0].supervisor_report["running"] == busy:
                return
            await asyncio.sleep(0.1)


async def test_accepted_quotes_are_in_document(
    laptop: FleetConfig, documents: list[Document], question: str, tmp_path: Path
) -> None:
    async with opened(laptop, tmp_path) as orchestra:
        result = await orchestra.run(orchestra.find("answer_from_documents"), question=question, documents=documents)
    texts = {document.source: document.text for document in documents}
    for citation in Answer.model_validate(result.value).citations:
        assert texts[citation.source][citation.start : citation.end] == citation.quote
    for span in result.evidence:
        assert span.quote in texts[span.source]
    assert result.usage.output_tokens > 0


async def test_journal_has_exact_bytes(laptop: FleetConfig, question: str, tmp_path: Path) -> None:
    async with opened(laptop, tmp_path) as orchestra:
        run = await orchestra.start(
            orchestra.find("generative_reader"), question=question, context="The tower was completed in 1889."
        )
        await run.wait()
        (attempt, *_) = [event for event in await orchestra.journal.read(run.id) if isinstance(event, AttemptFinished)]
        sent, received = (
            await orchestra.journal.get_blob(attempt.sent),
            await orchestra.journal.get_blob(attempt.received),
        )
    assert sent is not None
    assert received is not None
    asked, answered = json.loads(sent), json.loads(received)
    assert question in asked["messages"][-1]["content"]
    assert answered["usage"]["completion_tokens"] == attempt.usage.output_tokens


async def test_two_reader_kinds_answer_together(laptop: FleetConfig, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    async with opened(laptop, tmp_path) as orchestra:
        both = Agent.from_card(orchestra.registry.card("reader").with_settings(enough=None))
        run = await orchestra.start(
            both, question="When was the tower completed?", context="The tower was completed in 1889."
        )
        result = await run.wait()
        (attempt,) = [event for event in await orchestra.journal.read(run.id) if isinstance(event, AttemptFinished)]
        said = json.loads(await orchestra.journal.get_blob(attempt.received) or b"{}")
    assert result.output == {"answer": "1889"}
    assert {name: one["value"] for name, one in said.items()} == {
        name: {"answer": "1889"} for name in ("generative_reader", "extractive_reader")
    }
    assert attempt.confidence == pytest.approx(
        (1.3 * said["extractive_reader"]["confidence"] + said["generative_reader"]["confidence"]) / 2.3
    )
    assert attempt.usage.output_tokens == said["generative_reader"]["received"]["usage"]["completion_tokens"]


async def test_streamed_text_costs_the_same(laptop: FleetConfig, tmp_path: Path) -> None:
    async with opened(laptop, tmp_path) as orchestra:
        # cached prompts round differently from computed ones, so two tokens may tie
        await orchestra.run(counting, most=20)
        run = await orchestra.options(live=True).start(counting, most=20)
        pieces = [(piece, time.time()) async for piece in run.text()]
        live, plain = await run, await orchestra.run(counting, most=20)
        (attempt,) = [event for event in await orchestra.journal.read(run.id) if isinstance(event, AttemptFinished)]
        sent = await orchestra.journal.get_blob(attempt.sent)
    texts = [piece.text for piece, _ in pieces]
    assert "".join(texts).strip() == str(live.output).strip() == str(plain.output).strip(), (
        "the card draws nothing by chance"
    )
    assert len(pieces) > 10
    assert pieces[0][1] < attempt.at, "the first one came long before the answer was whole"
    assert [piece.start for piece, _ in pieces] == [sum(map(len, texts[:number])) for number in range(len(texts))]
    assert live.usage.output_tokens == plain.usage.output_tokens > 10, "the server counts what it streams too"
    assert sent is not None
    assert json.loads(sent)["stream"] is True


async def test_cancelled_run_frees_server(laptop: FleetConfig, tmp_path: Path) -> None:
    async with opened(laptop, tmp_path) as orchestra:
        run = await orchestra.start(counting, most=5000)
        await eventually(orchestra, busy=1)
        run.cancel("a test")
        result = await run.wait()
        assert result.status == "cancelled"
        await eventually(orchestra, busy=0)


async def test_run_continues_after_server_restart(laptop: FleetConfig, tmp_path: Path) -> None:
    async with opened(laptop, tmp_path) as orchestra:
        run = await orchestra.start(counting, most=5000)
        await eventually(orchestra, busy=1)
        (before,) = (await orchestra.fleet_status()).servers
        os.kill(before.supervisor_report["pid"], signal.SIGKILL)
        result = await run.wait()
        (after,) = (await orchestra.fleet_status()).servers
        events = await orchestra.journal.read(run.id)
    assert result.status == "done"
    assert [event.error for event in events if isinstance(event, AttemptFinished)] == ["F206", ""]
    assert len([event for event in events if isinstance(event, AttemptStarted)]) == 2
    restarts, pids = zip(
        *((one.supervisor_report["restarts"], one.supervisor_report["pid"]) for one in (before, after)), strict=True
    )
    assert (restarts[1], pids[0] != pids[1]) == (restarts[0] + 1, True)


async def test_fork_changed_prompt_reruns_reader_only(
    laptop: FleetConfig, documents: list[Document], question: str, tmp_path: Path
) -> None:
    shutil.copytree(AGENTS / "generative_reader", tmp_path / "agents" / "generative_reader")
    (tmp_path / "orchestra.toml").touch()
    async with opened(laptop, tmp_path) as orchestra:
        first = await orchestra.run(orchestra.find("answer_from_documents"), question=question, documents=documents)
        same = await orchestra.fork(first.run)
        assert (await same.run).value == first.value
        assert same.changes == ()
        assert all(
            event.reused_from
            for event in await orchestra.journal.read(same.run.id)
            if isinstance(event, AttemptFinished)
        )
    prompt = tmp_path / "agents" / "generative_reader" / "prompt.md"
    prompt.write_text("Read with care.\n" + prompt.read_text("utf-8"), "utf-8")
    async with opened(laptop, tmp_path) as orchestra:
        again = await orchestra.fork(first.run)
        result = await again.run.wait()
        assert result.status in ("done", "abstained")
        assert [change.node for change in again.changes] == ["readings"]
        ends = [event for event in await orchestra.journal.read(again.run.id) if isinstance(event, AttemptFinished)]
        assert [bool(event.reused_from) for event in ends if event.node == "passages"] == [True]
        assert not any(event.reused_from for event in ends if event.node.startswith("readings["))


async def test_memo_avoids_accepted_calls(laptop: FleetConfig, tmp_path: Path) -> None:
    async with opened(laptop, tmp_path) as orchestra:
        remembering = orchestra.options(memo=True)
        first = await remembering.run(counting, most=3)
        second = await remembering.run(counting, most=3)
        other = await remembering.run(counting, most=4)
    assert second.value == first.value
    assert first.usage.output_tokens > 0
    assert second.usage.output_tokens == 0
    assert other.usage.output_tokens > 0
