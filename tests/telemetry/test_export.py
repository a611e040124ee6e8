"""Traces of an `Orchestra`: to a receiver of OTLP over HTTP, from the context of the caller, to the model server."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from orchestra import Orchestra, tool
from orchestra.core.errors import InputError
from orchestra.core.event_logging import CALL_TRACE, CALLER_TRACE, create_observer
from orchestra.core.events import RunStarted
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryStore
from orchestra.telemetry.open_tracer import open_tracer
from orchestra.telemetry.otlp import OtlpSink
from orchestra.telemetry.trace_context import TraceContext, own_trace_id
from orchestra.testing import SimulatedServer, VirtualClock, run_simulated
from orchestra.testing.fake_workers import SimulatedWorkers
from tests.engine.stage import ANSWERS, program
from tests.telemetry.receiver import Receiver, receiving, texts
from tests.telemetry.test_spans import MAP
from tests.telemetry.traces import Process

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FLEET = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {endpoint: "URL/v1", model: m, dialect: vllm, label: restricted, revision: "1"}
models: {base: s}
"""
AGENT = """\
schema: orchestra/v1
name: answerer
description: Answers.
input: {question: str}
output: {answer: str}
model: base
"""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    with receiving() as found:
        yield found


def project(folder: Path, url: str) -> Path:
    """Writes a project with one agent on a simulated model server."""
    (folder / "orchestra.toml").write_text('fleet = "./fleet.yaml"\n')
    (folder / "fleet.yaml").write_text(FLEET.replace("URL", url))
    (folder / "agents" / "answerer").mkdir(parents=True)
    (folder / "agents" / "answerer" / "agent.yaml").write_text(AGENT)
    (folder / "agents" / "answerer" / "prompt.md").write_text("Answer: {{ question }}\n")
    return folder


async def run_once(folder: Path, environ: dict[str, str], **settings: Any) -> tuple[str, SimulatedServer]:
    """Runs the agent once on a simulated server; returns the id of the run, and the server."""
    async with SimulatedServer("m", answer=lambda request: {"answer": "yes"}) as server:
        chosen = Settings.load({"journal": "off", **settings}, start=project(folder, server.url), environ=environ)
        async with Orchestra.open(chosen) as orchestra:
            result = await orchestra.run(orchestra.find("answerer"), question="Is it?")
    return result.run, server


async def test_receiver_gets_spans_and_server_their_context(tmp_path: Path, receiver: Receiver) -> None:
    run, server = await run_once(tmp_path, {}, otlp=receiver.address)
    assert receiver.paths == {"/v1/traces"}
    assert receiver.resource["service.name"] == "orchestra"
    root, agent, chat = (receiver.of(name) for name in ("invoke_workflow answerer", "invoke_agent answerer", "chat m"))
    assert int.from_bytes(root.trace_id, "big") == own_trace_id(run)
    assert (root.parent_span_id, agent.parent_span_id, chat.parent_span_id) == (b"", root.span_id, agent.span_id)
    assert texts(iter(chat.attributes))["orchestra.server"] == "s"
    said = [request.traceparent for request in server.app.requests if request.path.endswith("completions")]
    assert said == [f"00-{root.trace_id.hex()}-{chat.span_id.hex()}-01"]


async def test_standard_variable_turns_traces_on(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "billing")
    await run_once(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.address})
    assert receiver.of("chat m")
    assert receiver.resource["service.name"] == "billing"


async def test_tool_on_a_thread_has_the_context_of_its_span(tmp_path: Path, receiver: Receiver) -> None:
    @tool(effect="pure")
    def position(text: str) -> str:
        """Returns the position in the trace, and that of other instrumentation."""
        active = trace.get_current_span().get_span_context()
        return f"{CALLER_TRACE.get()} {active.span_id:016x}"

    settings = Settings.load({"journal": "off", "otlp": receiver.address}, start=tmp_path, environ={})
    async with Orchestra.open(settings, fleet="none") as orchestra:
        result = await orchestra.run(position, text="a")
    span = receiver.of("execute_tool position")
    assert result.value == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01 {span.span_id.hex()}"


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, "off"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "environment"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, "environment"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, "off"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, "off"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "ORCHESTRA_OTLP": "off"}, "off"),
        ({"ORCHESTRA_OTLP": "http://c:4318"}, "http://c:4318"),
    ],
)
def test_setting_follows_the_variables(tmp_path: Path, environ: dict[str, str], found: str) -> None:
    assert Settings.load(start=tmp_path, environ={"HOME": str(tmp_path), **environ}).otlp == found


async def test_traces_off_send_no_header(tmp_path: Path, receiver: Receiver) -> None:
    _, server = await run_once(tmp_path, {})
    assert receiver.bodies == []
    assert {request.traceparent for request in server.app.requests} == {""}


async def test_collector_away_does_not_fail_a_run(tmp_path: Path) -> None:
    run, _ = await run_once(tmp_path, {}, otlp="http://127.0.0.1:9")
    assert run


async def test_missing_sdk_is_an_error_only_if_the_setting_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.telemetry.open_tracer.MODULES", ("opentelemetry.no_such_module",))
    environ = {"HOME": "/", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}
    async with open_tracer(Settings.load(environ=environ)) as tracer:
        assert tracer is None
    with pytest.raises(InputError, match="C065"):
        async with open_tracer(Settings.load({"otlp": "http://c:4318"}, environ={"HOME": "/"})):
            pass


def test_untrusted_project_may_not_send_traces_elsewhere(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    (tmp_path / "orchestra.toml").write_text('otlp = "http://collector.example:4318"\n')
    loaded = Settings.load(start=tmp_path, environ=environ, trusted="recorded")
    assert "send traces to http://collector.example:4318" in str(loaded.trust_error("otlp"))
    (tmp_path / "orchestra.toml").write_text('otlp = "http://127.0.0.1:4318"\n')
    assert Settings.load(start=tmp_path, environ=environ, trusted="recorded").trust_error() is None
    (tmp_path / "orchestra.toml").write_text("")
    own = {**environ, "ORCHESTRA_OTLP": "http://collector.example:4318"}
    assert Settings.load(start=tmp_path, environ=own, trusted="recorded").trust_error() is None


# The context of the caller


def root_positions(process: Process) -> set[tuple[int, int]]:
    """Returns the trace and the parent of the root spans."""
    return {
        (span.context.trace_id, span.parent.span_id if span.parent is not None else 0)
        for span in process.spans
        if span.name.startswith("invoke_workflow")
    }


def test_run_in_an_active_span_is_its_child() -> None:
    host = TracerProvider(shutdown_on_exit=False).get_tracer("host")

    async def scene(clock: VirtualClock) -> None:
        process = Process(clock, SimulatedWorkers(ANSWERS, clock=clock), MemoryStore())
        with host.start_as_current_span("request") as span:
            await process.start(program(MAP), {"text": "a"}).wait()
        await process.engine.close()
        context = span.get_span_context()
        assert root_positions(process) == {(context.trace_id, context.span_id)}

    run_simulated(scene, 0)


def test_run_of_a_request_is_child_of_its_header_also_after_a_crash() -> None:
    async def scene(clock: VirtualClock) -> None:
        workers, store = SimulatedWorkers(ANSWERS, clock=clock, latency=0.5), MemoryStore()
        first = Process(clock, workers, store)
        token = CALLER_TRACE.set(CALLER)
        run = first.start(program(MAP), {"text": "a"})
        CALLER_TRACE.reset(token)
        await clock.sleep(0.75)
        await first.journal.close()
        await first.engine.close()
        second = Process(clock, workers, store)
        await (await second.engine.resume(program(MAP), run.id)).wait()
        await second.engine.close()
        assert root_positions(second) == {(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)}
        assert len({span.context.trace_id for span in (*first.spans, *second.spans)}) == 1

    run_simulated(scene, 0)


def test_run_that_a_tool_starts_is_child_of_the_tool() -> None:
    async def scene(clock: VirtualClock) -> None:
        async def shout(call: Any) -> str:
            await process.start(program(MAP), {"text": "a"}).wait()
            return "A"

        process = Process(clock, SimulatedWorkers({**ANSWERS, "shout": shout}, clock=clock), MemoryStore())
        outer = 'output: ${o}\nnodes:\n  o: {tool: shout, with: {text: "a"}}\n'
        await process.start(program(outer), {}).wait()
        await process.engine.close()
        (tool,) = [span for span in process.spans if span.name == "execute_tool shout"]
        inner = [span for span in process.spans if span.name.startswith("invoke_workflow") and span.parent is not None]
        assert [span.parent.span_id for span in inner if span.parent is not None] == [tool.context.span_id]

    run_simulated(scene, 0)


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (CALLER, True),
        (CALLER.replace("00-", "01-", 1) + "-more", True),
        (CALLER + "-more", False),
        (CALLER.replace("00-", "ff-", 1), False),
        (CALLER.upper(), False),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", False),
        ("", False),
        ("00-\n", False),
    ],
)
def test_trace_context_is_parsed_as_w3c_states(header: str, valid: bool) -> None:
    found = TraceContext.parse(header)
    assert (found is not None) == valid
    if found is not None:
        assert found.format() == CALLER


@pytest.mark.parametrize(("caller", "flag"), [("", "00"), (CALLER[:-2] + "00", "00"), (CALLER, "01")])
def test_sampler_and_caller_decide_what_is_exported(caller: str, flag: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    said: list[str] = []

    async def scene(clock: VirtualClock) -> None:
        def write(call: Any) -> str:
            said.append(CALL_TRACE.get())
            return "A"

        workers = SimulatedWorkers({**ANSWERS, "writer": write}, clock=clock)
        process = Process(clock, workers, MemoryStore())
        process.tracer._sink = OtlpSink(provider)
        token = CALLER_TRACE.set(caller)
        await process.start(program(MAP), {"text": "a"}).wait()
        CALLER_TRACE.reset(token)
        await process.engine.close()

    run_simulated(scene, 0)
    assert bool(exporter.get_finished_spans()) == (flag == "01")
    assert [text[-2:] for text in said] == [flag]


# Logs


def test_log_line_has_trace_of_caller_without_export() -> None:
    stream = io.StringIO()
    log = create_observer("info", stream, form="json")
    assert log is not None
    started = RunStarted(seq=1, at=0.0, run="r1", workflow="w", graph="", inputs={}, options={"trace": CALLER})
    log("r1", started)
    log("r2", RunStarted(seq=1, at=0.0, run="r2", workflow="w", graph="", inputs={}, options={"trace": "00-\n"}))
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["run"], first["trace_id"]) == ("r1", "0af7651916cd43dd8448eb211c80319c")
    assert "trace_id" not in second


def test_each_log_line_has_the_trace_of_the_exported_spans() -> None:
    stream = io.StringIO()

    async def scene(clock: VirtualClock) -> str:
        process = Process(clock, SimulatedWorkers(ANSWERS, clock=clock), MemoryStore())
        process.engine.observe = create_observer("debug", stream, form="json", tracer=process.tracer)
        run = process.start(program(MAP), {"text": "a"})
        await run.wait()
        await process.engine.close()
        return run.id

    run = run_simulated(scene, 0)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 4
    assert {(line["run"], line["trace_id"]) for line in lines} == {(run, f"{own_trace_id(run):032x}")}


async def test_log_lines_of_an_orchestra_have_the_trace_id(
    tmp_path: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = await run_once(tmp_path, {}, otlp=receiver.address, log="info", log_as="json")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"run"' in line]
    assert [line["event"] for line in lines] == ["run started", "run finished"]
    assert {line["trace_id"] for line in lines} == {f"{own_trace_id(run):032x}"}


def test_nothing_of_opentelemetry_is_imported_while_traces_are_off(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from orchestra import Orchestra\n"
        "from orchestra.core.settings import Settings\n"
        "async def main():\n"
        "    async with Orchestra.open(Settings.load({'journal': 'off'}, environ={}), fleet='none'):\n"
        "        pass\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'orchestra.telemetry'))])\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (found.stdout.strip(), found.returncode) == ("[]", 0), found.stderr
