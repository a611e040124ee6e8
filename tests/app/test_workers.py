"""Workers in production: each call is routed to its server or tool and measured there."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.registry import Registry
from orchestra.app.project import Project
from orchestra.app.workers import ProjectWorkers
from orchestra.core.errors import FleetError
from orchestra.core.protocols import NO_ESTIMATE, CallError, CallEstimate, CallRequest, CallResult
from orchestra.core.settings import Settings
from orchestra.fleet.ensemble_calls import call_ensemble, estimate_ensemble
from orchestra.testing.fake_vllm.server import SimulatedServer
from orchestra.workflows.python.steps import Workflow, agent, answered_by_model, tool
from orchestra.workflows.yaml.reader import read

FLEET = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {endpoint: "URL/v1", model: m, dialect: vllm, label: restricted, revision: "1"}
models: {base: s}
"""


@tool(effect="pure", version="1")
async def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


MET = threading.Barrier(100)
SPOKEN: ContextVar[str] = ContextVar("SPOKEN", default="nothing")


@tool(effect="pure")
def meeting(number: int) -> str:
    """Returns once a hundred calls have arrived."""
    MET.wait(20)
    return SPOKEN.get()


CROWD: list[int] = []


@tool(effect="pure")
def crowded(number: int) -> int:
    """Returns the number of concurrent calls."""
    CROWD.append(number)
    time.sleep(0.01)
    now = len(CROWD)
    CROWD.remove(number)
    return now


@agent(prompt="Say: {{ text }}")
def writer(text: str) -> str:
    """Writes."""
    return answered_by_model()


@agent(prompt="Once: {{ text }}")
def earlier(text: str) -> str:
    """Writes."""
    return answered_by_model()


def project(folder: Path, url: str = "http://127.0.0.1:1", **more: Any) -> Project:
    (folder / "fleet.yaml").write_text(FLEET.replace("URL", url))
    made = Project.load(
        Settings.load({"journal": "off", "fleet": str(folder / "fleet.yaml"), **more}, start=folder, environ={})
    )
    for declared in (double, meeting, crowded, writer):
        made.register(declared)
    return made


@pytest.fixture
async def server() -> AsyncIterator[SimulatedServer]:
    async with SimulatedServer("m", answer=lambda request: "yes") as server:
        yield server


def call(name: str = "writer", kind: Any = "agent", **more: Any) -> CallRequest:
    given: dict[str, Any] = {"run": "r", "node": "n", "attempt": 1, "inputs": {"text": "hello"}} | more
    return CallRequest(kind=kind, name=name, **given)


async def only(troupe: ProjectWorkers, what: CallRequest) -> CallResult | CallError:
    return await troupe.call(what)


async def test_workers_models_on_fleet_tools_local(tmp_path: Path, server: SimulatedServer) -> None:
    async with ProjectWorkers.open(project(tmp_path, server.url)) as troupe:
        written, doubled = await only(troupe, call()), await only(troupe, call("double", "tool", inputs={"number": 4}))
    assert isinstance(written, CallResult)
    assert isinstance(doubled, CallResult)
    assert (written.value, written.server, doubled.value, doubled.server) == ("yes", "s", 8, "local")


async def test_workers_call_measured_before_server_exists(tmp_path: Path) -> None:
    async with ProjectWorkers.open(project(tmp_path), mode="none") as troupe:
        measure = troupe.estimate(call())
        assert measure.prompt_tokens > len("Say: hello")
        assert (measure.max_output, bool(measure.memo_key)) == (256, True)
        tool_measure = troupe.estimate(call("double", "tool", inputs={"number": 4}))
        assert (tool_measure.prompt_tokens, bool(tool_measure.memo_key)) == (0, True)
        assert troupe.estimate(call("nobody")) == NO_ESTIMATE


async def test_workers_count_model_prompts_only(tmp_path: Path, server: SimulatedServer) -> None:
    async with ProjectWorkers.open(project(tmp_path, server.url)) as troupe:
        counted = await troupe.count_tokens(call())
        assert counted is not None
        assert 0 < counted <= troupe.estimate(call()).prompt_tokens
        assert await troupe.count_tokens(call("double", "tool", inputs={"number": 4})) is None


MIXED = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {endpoint: "URL/v1", model: m, dialect: vllm, label: restricted}
  ours: {model: m, max_model_len: 512, weights: {licence: none, sources: [{folder: nowhere}]}}
models: {base: s, large: ours}
escalate: large
"""
CLIMBS = """\
schema: orchestra/v1
name: climbs
input: {text: str}
output: ${reply}
nodes:
  reply: {agent: writer, with: {text: "${input.text}"}, escalate: "${input.text == 'hard'}"}
"""


async def test_workers_failed_server_blocks_only_runs_needing_it(
    tmp_path: Path, server: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("orchestra.fleet.supervisor.vllm_launch.vllm_version", lambda: "0.0-fake")
    made = project(tmp_path)
    (tmp_path / "fleet.yaml").write_text(MIXED.replace("URL", server.url))
    async with ProjectWorkers.open(made) as troupe:
        await troupe.prepare(made.program(Workflow.from_graph(read(CLIMBS, "climbs.yaml").graph)))
        done, refused = await only(troupe, call()), await only(troupe, call(tier=1))
    assert isinstance(done, CallResult)
    assert isinstance(refused, CallError)
    assert refused.code == "F003"


async def test_workers_faulty_fleet_file_reported_at_call(tmp_path: Path) -> None:
    made = project(tmp_path)
    (tmp_path / "fleet.yaml").write_text("schema: orchestra/fleet/v1\n")
    async with ProjectWorkers.open(made) as troupe:
        assert troupe.estimate(call()) == NO_ESTIMATE
        assert await troupe.count_tokens(call()) is None
        refused = await only(troupe, call())
    assert isinstance(refused, CallError)
    assert refused.code == "F100"


async def test_workers_resumed_run_uses_project_card(tmp_path: Path, server: SimulatedServer) -> None:
    made = project(tmp_path, server.url)
    assert earlier.card is not None
    older = Card.restore(earlier.card.dump())
    made.keep_card(older)
    async with ProjectWorkers.open(made) as troupe:
        kept = await only(troupe, call("earlier", version=older.digest))
        gone = await only(troupe, call(version="0" * 32))
    assert isinstance(kept, CallResult)
    assert isinstance(gone, CallError)
    assert gone.code == "F221"
    assert b"Once: hello" in kept.sent


async def test_workers_replaced_card_kept_for_its_runs(tmp_path: Path, server: SimulatedServer) -> None:
    made = project(tmp_path, server.url)
    before = made.cards["writer"]

    @agent(prompt="Now: {{ text }}")
    def writer(text: str) -> str:
        """Writes."""
        return answered_by_model()

    made.register(writer)
    async with ProjectWorkers.open(made) as troupe:
        done = [await only(troupe, call(version=version)) for version in (before.digest, "")]
    assert [one.sent.partition(b": hello")[0][-3:] for one in done if isinstance(one, CallResult)] == [b"Say", b"Now"]


MEMBER = """\
name: {name}
input: {{text: str}}
output: {{label: "Literal['yes', 'no']"}}
max_output: {most}
min_output: 4
"""


BOTH = """\
name: both
kind: ensemble
members: [first, second]
input: {text: str}
output: {label: "Literal['yes', 'no']"}
"""


class Chosen:
    """Answer and confidence of each member; an HTTP status instead is a server error."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def __call__(self, request: Any) -> Any:
        return self.said[next(name for name in self.said if f"{name}: " in str(request.body))]


def ensemble(folder: Path, url: str, more: str = "") -> Project:
    for name, most in (("first", 20), ("second", 30)):
        (folder / "agents" / name).mkdir(parents=True, exist_ok=True)
        (folder / "agents" / name / "agent.yaml").write_text(MEMBER.format(name=name, most=most))
        (folder / "agents" / name / "prompt.md").write_text(f"{name}: {{{{ text }}}}")
    (folder / "agents" / "both").mkdir(exist_ok=True)
    (folder / "agents" / "both" / "agent.yaml").write_text(BOTH + more)
    return project(folder, url)


@pytest.fixture
async def torn() -> AsyncIterator[SimulatedServer]:
    async with SimulatedServer("m", answer=Chosen(first='{"label": "yes"}', second='{"label": "no"}')) as server:
        yield server


async def test_ensemble_calls_all_members_reports_answers(tmp_path: Path, torn: SimulatedServer) -> None:
    async with ProjectWorkers.open(ensemble(tmp_path, torn.url)) as troupe:
        both = await only(troupe, call("both"))
        alone = {name: await only(troupe, call(name)) for name in ("first", "second")}
    assert isinstance(both, CallResult)
    told = json.loads(both.received)
    assert {name: said["value"] for name, said in told.items()} == {
        "first": {"label": "yes"},
        "second": {"label": "no"},
    }
    best = max(told.values(), key=lambda said: said["confidence"])
    assert both.value == best["value"]
    assert both.confidence == pytest.approx(best["confidence"] / 2)
    assert "first: hello" in json.loads(both.sent)["first"]["messages"][-1]["content"]
    assert (both.usage.calls, both.server, both.model) == (1, "s", "m")
    spent = [reply.usage for reply in alone.values()]
    assert both.usage.output_tokens == sum(usage.output_tokens for usage in spent)
    assert both.usage.prompt_tokens == sum(usage.prompt_tokens for usage in spent)


async def test_ensemble_measured_as_sum_of_members(tmp_path: Path, torn: SimulatedServer) -> None:
    async with ProjectWorkers.open(ensemble(tmp_path, torn.url)) as troupe:
        whole, parts = troupe.estimate(call("both")), [troupe.estimate(call(name)) for name in ("first", "second")]
        assert (whole.max_output, whole.min_output) == (50, 8)
        assert whole.prompt_tokens == sum(part.prompt_tokens for part in parts)
        assert whole.memo_key not in ("", *(part.memo_key for part in parts))
        assert whole.memo_key == troupe.estimate(call("both", node="other")).memo_key
        assert whole.memo_key != troupe.estimate(call("both", inputs={"text": "other"})).memo_key
        counted = [await troupe.count_tokens(call(name)) for name in ("both", "first", "second")]
        assert counted[0] == (counted[1] or 0) + (counted[2] or 0) > 0
        cut = await only(troupe, call("both", max_output=30))
    assert isinstance(cut, CallResult)
    assert [sent["max_tokens"] for sent in json.loads(cut.sent).values()] == [
        12,
        17,
    ]  # 4 each at least, plus the additional tokens that each may write


async def test_ensemble_null_member_gives_null(tmp_path: Path) -> None:
    broken = SimulatedServer("m", answer=Chosen(first='{"label": "yes"}', second="neither"))
    async with broken as server, ProjectWorkers.open(ensemble(tmp_path, server.url)) as troupe:
        refused = await only(troupe, call("both"))
    assert isinstance(refused, CallError)
    assert refused.code.startswith("M")
    assert refused.reason.startswith("second, of the ensemble both: ")
    assert set(json.loads(refused.received)) == {"first", "second"}
    assert refused.usage.output_tokens > 0


async def test_ensemble_resume_keeps_members(tmp_path: Path, torn: SimulatedServer) -> None:
    made = ensemble(tmp_path, torn.url)
    older = Card.restore(made.registry.card("both").dump())
    (tmp_path / "agents" / "first" / "prompt.md").write_text("first: now {{ text }}")
    made = project(tmp_path, torn.url)
    assert made.registry.card("both").digest != older.digest
    made.keep_card(older)
    async with ProjectWorkers.open(made) as troupe:
        kept, now = await only(troupe, call("both", version=older.digest)), await only(troupe, call("both"))
    assert b"first: hello" in kept.sent
    assert b"first: now hello" in now.sent


@pytest.mark.parametrize(("enough", "asked"), [(None, 2), (1.0, 2), (0.0001, 1)])
async def test_ensemble_stops_at_enough_members(
    tmp_path: Path, torn: SimulatedServer, enough: float | None, asked: int
) -> None:
    made = ensemble(tmp_path, torn.url, "" if enough is None else f"enough: {enough}\n")
    async with ProjectWorkers.open(made) as troupe:
        both = await only(troupe, call("both"))
        alone = await only(troupe, call("first"))
    assert isinstance(both, CallResult)
    assert isinstance(alone, CallResult)
    told = json.loads(both.received)
    assert list(told) == ["first", "second"][:asked]
    if asked == 1:
        assert (both.value, both.confidence, both.usage.output_tokens) == (
            alone.value,
            told["first"]["confidence"],
            alone.usage.output_tokens,
        )


async def test_ensemble_ordered_members_share_timeout(tmp_path: Path, torn: SimulatedServer) -> None:
    card = ensemble(tmp_path, torn.url, "enough: 1.0\n").registry.card("both")
    times: list[float | None] = []

    async def slow(asked: CallRequest) -> CallResult:
        times.append(asked.timeout)
        await asyncio.sleep(0.05)
        return CallResult(value={"label": "yes"}, confidence=0.5)

    for timeout in (10.0, 0.01, None):
        await call_ensemble(call("both", timeout=timeout), card, slow)
    assert times[0] == pytest.approx(10, abs=0.01)
    assert 5 < (times[1] or 0) <= 9.95
    assert times[2:] == [pytest.approx(0.01, rel=0.5), 0.001, None, None]


async def test_ensemble_cancel_cancels_members(tmp_path: Path, torn: SimulatedServer) -> None:
    card = ensemble(tmp_path, torn.url).registry.card("both")
    begun, ended = asyncio.Event(), list[str]()

    async def stuck(asked: CallRequest) -> CallResult:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.append(asked.name)
        raise AssertionError

    task = asyncio.create_task(call_ensemble(call("both"), card, stuck))
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == ["first", "second"]


async def test_ensemble_forbidden_label_reaches_no_member(tmp_path: Path, torn: SimulatedServer) -> None:
    async with ProjectWorkers.open(ensemble(tmp_path, torn.url, "label: internal\n")) as troupe:
        refused = await only(troupe, call("both", label="restricted"))
        done = await only(troupe, call("both", label="internal"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.sent) == ("F202", b"")
    assert isinstance(done, CallResult)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({}, ["extractive_reader", "generative_reader"]),
        ({"feedback": ("no quote",)}, ["generative_reader"]),
        ({"sample": 2}, ["generative_reader"]),
        ({"tier": 1}, ["generative_reader"]),
    ],
)
async def test_ensemble_repeated_member_not_called_again(more: dict[str, Any], names: list[str]) -> None:
    asked: list[str] = []

    async def unsure(one: CallRequest) -> CallResult:
        asked.append(one.name)
        return CallResult(value={"answer": one.name}, confidence=0.5)

    done = await call_ensemble(
        call("reader", inputs={"question": "a", "context": "b"}, **more), Registry.load().card("reader"), unsure
    )
    assert isinstance(done, CallResult)
    assert (asked, done.value) == (names, {"answer": names[0]})
    assert list(json.loads(done.received)) == names


async def test_ensemble_equal_expressions_are_one_answer(tmp_path: Path) -> None:
    types = "input: {question: str}\noutput: {expression: str, answer: float | null}\n"
    cards = {
        name: f"name: {name}\n{types}computed: {{answer: {{value: expression}}}}\n" for name in ("one", "two", "three")
    }
    cards["sums"] = f"name: sums\nkind: ensemble\nmembers: [one, two, three]\n{types}"
    for name, text in cards.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.yaml").write_text(text)
        (tmp_path / name / "prompt.md").write_text("{{ question }}")
    said = {"one": ("2+3", 5, 0.5), "two": ("9", 9, 0.6), "three": ("3+2", 5, 0.4)}

    async def told(one: CallRequest) -> CallResult:
        expression, answer, sure = said[one.name]
        return CallResult(value={"expression": expression, "answer": answer}, confidence=sure)

    done = await call_ensemble(
        call("sums", inputs={"question": "a"}), Registry.load([tmp_path], builtin=False).card("sums"), told
    )
    assert isinstance(done, CallResult)
    assert done.value == {"expression": "2+3", "answer": 5}
    assert done.confidence == pytest.approx(0.3)


def test_ensemble_price_bound_is_maximum_or_unknown() -> None:
    card = Registry.load().card("reader")
    told = {
        "generative_reader": CallEstimate(
            prompt_tokens=10, max_output=5, min_output=2, token_prices=(1.0, 4.0), memo_key="a"
        ),
        "extractive_reader": CallEstimate(token_prices=(2.0, 3.0), unpriced_server="far", memo_key="b"),
    }
    whole = estimate_ensemble(
        call("reader", inputs={"question": "a", "context": "b"}), card, lambda one: told[one.name]
    )
    assert (whole.token_prices, whole.unpriced_server, whole.prompt_tokens, whole.max_output, whole.min_output) == (
        (2.0, 4.0),
        "far",
        10,
        5,
        2,
    )
    told["extractive_reader"] = NO_ESTIMATE
    assert (
        estimate_ensemble(
            call("reader", inputs={"question": "a", "context": "b"}), card, lambda one: told[one.name]
        ).memo_key
        == ""
    )


async def test_ensemble_uncountable_member_gives_no_count(tmp_path: Path) -> None:
    async with ProjectWorkers.open(ensemble(tmp_path, "http://127.0.0.1:1"), mode="none") as troupe:
        assert await troupe.count_tokens(call("both")) is None


async def test_ensemble_confidence_equal_to_threshold_suffices(tmp_path: Path, torn: SimulatedServer) -> None:
    card = ensemble(tmp_path, torn.url, "enough: 0.5\n").registry.card("both")
    asked: list[str] = []

    async def half(one: CallRequest) -> CallResult:
        asked.append(one.name)
        return CallResult(value={"label": "yes"}, confidence=0.5)

    await call_ensemble(call("both"), card, half)
    assert asked == ["first"]


JUDGING = """
schema: orchestra/v1
name: judging
input: {statement: str, text: str}
output: ${checked}
nodes:
  checked: {verify: "${input.statement}", checks: [entailment], against: "${input.text}", otherwise: [abstain]}
"""


async def test_judge_encoder_loaded_before_run_clock_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    made = project(tmp_path)
    async with ProjectWorkers.open(made, mode="adopt") as troupe:
        with pytest.raises(FleetError, match="the encoder 'mpnet' is not on this machine"):
            await troupe.prepare(made.program(Workflow.from_graph(read(JUDGING, "judging.yaml").graph)))


async def test_plain_functions_have_own_threads(tmp_path: Path) -> None:
    async with ProjectWorkers.open(project(tmp_path), mode="none") as troupe:
        SPOKEN.set("in this context")
        calls = [
            asyncio.ensure_future(troupe.call(call("meeting", "tool", inputs={"number": number})))
            for number in range(100)
        ]
        replies = await asyncio.gather(*calls)
        assert {reply.value for reply in replies if isinstance(reply, CallResult)} == {"in this context"}
        assert len(replies) == 100
        taken = {thread for thread in threading.enumerate() if thread.name.startswith("orchestra-tool")}
        assert len(taken) >= 100
    for thread in taken:
        thread.join(5)
        assert not thread.is_alive()


async def test_plain_functions_at_once_within_setting(tmp_path: Path) -> None:
    async with ProjectWorkers.open(project(tmp_path, threads=3), mode="none") as troupe:
        replies = await asyncio.gather(
            *(troupe.call(call("crowded", "tool", inputs={"number": number})) for number in range(20))
        )
    assert max(reply.value for reply in replies if isinstance(reply, CallResult)) <= 3
    assert len(replies) == 20
