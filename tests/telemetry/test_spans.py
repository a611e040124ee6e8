"""The spans of a run: names, times, parents and verdicts, on a simulated fleet in virtual time."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanKind, StatusCode

from orchestra.core.events import AttemptFinished, AttemptStarted, RunStarted, Usage
from orchestra.core.protocols import CallError, CallRequest, CallResult, InboxMessage
from orchestra.journal.memory import MemoryStore
from orchestra.telemetry import conventions
from orchestra.telemetry.spans import INTERRUPTED
from orchestra.telemetry.trace_context import own_trace_id
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.stage import ANSWERS, play, program, sequence
from tests.engine.test_checks import WITH, chance
from tests.engine.test_plan_runs import LOUD, TEXTS, WORK, router
from tests.engine.test_resume import EVERYTHING, FAULTS
from tests.telemetry.traces import Process, outline, place, trace_run

MAP = """
input: {text: str}
output: ${loud.values}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {agent: writer, each: "${words}", as: word, with: {text: "${word}"}}
"""
READ = """
input: {text: str}
output: ${r}
nodes:
  r:
    agent: reader
    with: {question: q, context: "${input.text}"}
    checks: [quote]
    against: ${input.text}
    retry: {attempts: 2}
    otherwise: [%s]
"""
ASK = """
output: ${q}
nodes:
  q: {ask: "Really?", options: ["yes", "no"]}
"""
QUOTED = {"answer": "1889", "quote": "in 1889"}
UNQUOTED = {"answer": "1889", "quote": "elsewhere"}


def test_map_has_one_span_per_element() -> None:
    found = trace_run(MAP, {"text": "a b"})
    assert found.outline == (
        """
0-1 invoke_workflow staged run.status=done
  0-0.5 execute_tool split words
  0.5-1 invoke_agent writer loud[0]
    0.5-1 chat simulated loud[0]
  0.5-1 invoke_agent writer loud[1]
    0.5-1 chat simulated loud[1]
""".strip()
    )


def test_retry_is_a_second_attempt_and_a_failure_has_its_code() -> None:
    refused = CallError(code="F203", reason="refused", retryable=True, server="simulated", model="simulated")
    found = trace_run(MAP, {"text": "a"}, {"writer": sequence(refused, "A")}, latency=0.0)
    (first, second) = found.of("invoke_agent writer")
    assert [dict(span.attributes or {})["orchestra.attempt"] for span in (first, second)] == [1, 2]
    assert (first.attributes or {})["error.type"] == "F203"
    assert [span.status.is_ok for span in (first, second)] == [False, True]
    assert [event.name for event in first.events] == []
    (root,) = found.of("invoke_workflow staged")
    assert [event.name for event in root.events] == ["orchestra.retry_planned"]
    assert len(found.of("chat simulated")) == 1, "nothing was sent in the first attempt"


def test_rejected_value_has_a_verdict_on_its_own_attempt() -> None:
    found = trace_run(READ % "retry, abstain", {"text": "built in 1889"}, {"reader": sequence(UNQUOTED, QUOTED)})
    assert found.outline == (
        """
0-1 invoke_workflow staged run.status=done
  0-0.5 invoke_agent reader r accepted=False
    * evaluation.result quote fail
    0-0.5 chat simulated r
  0.5-1 invoke_agent reader r attempt 2 accepted=True
    * evaluation.result quote pass
    0.5-1 chat simulated r
""".strip()
    )


def test_abstention_is_no_error_and_has_its_verdict() -> None:
    found = trace_run(READ % "abstain", {"text": "nothing"})
    assert found.outline == (
        """
0-0.5 invoke_workflow staged run.status=abstained
  0-0.5 invoke_agent reader r accepted=False
    * evaluation.result quote fail
    0-0.5 chat simulated r
""".strip()
    )
    assert all(span.status.status_code is StatusCode.UNSET for span in found.spans)


def test_call_of_a_check_is_below_the_attempt_that_it_judges() -> None:
    text = READ.replace("[quote]", "[quote, entailment]").replace("retry: {attempts: 2}", "") % "abstain"
    answers = {"reader": QUOTED, "entailment": chance(0.9)}
    found = trace_run(text, {"text": "built in 1889"}, answers, catalog=WITH)
    assert found.outline == (
        """
0-1 invoke_workflow staged run.status=done
  0-1 invoke_agent reader r accepted=True
    * evaluation.result quote pass
    * evaluation.result entailment pass
    0-0.5 chat simulated r
    0.5-1 invoke_agent entailment r?1/entailment_0
      0.5-1 chat simulated r?1/entailment_0
""".strip()
    )


def test_escalation_names_the_tier() -> None:
    answers = {"reader": lambda call: QUOTED if call.tier else UNQUOTED}
    found = trace_run(READ % "escalate, abstain", {"text": "built in 1889"}, answers, request={"tiers": ("large",)})
    assert found.outline == (
        """
0-1 invoke_workflow staged run.status=done
  0-0.5 invoke_agent reader r accepted=False
    * evaluation.result quote fail
    0-0.5 chat simulated r
  0.5-1 invoke_agent reader r attempt 2 tier=1 accepted=True
    * evaluation.result quote pass
    0.5-1 chat simulated r
""".strip()
    )


def test_failed_run_has_the_code_of_its_node() -> None:
    broken = CallError(code="F212", reason="unknown model", server="simulated")
    found = trace_run(MAP, {"text": "a"}, {"writer": broken})
    assert found.outline == (
        """
0-1 invoke_workflow staged run.status=failed F212!
  0-0.5 execute_tool split words
  0.5-1 invoke_agent writer loud[0] F212!
""".strip()
    )


def test_plan_is_the_parent_of_the_router_and_sibling_of_the_steps() -> None:
    found = trace_run(WORK % "str", TEXTS, {"router": router(*LOUD)})
    assert found.outline == (
        """
0-1.5 invoke_workflow staged run.status=done
  0-1.5 plan solve plan.lines=3
    0-0.5 invoke_agent router solve#1/line
      0-0.5 chat simulated solve#1/line
    0.5-1 invoke_agent router solve#2/line
      0.5-1 chat simulated solve#2/line
    1-1.5 invoke_agent router solve#3/line
      1-1.5 chat simulated solve#3/line
  0.5-1 execute_tool split solve@1/s1
  1-1.5 execute_tool shout solve@1/s2
""".strip()
    )
    assert [(span.attributes or {})["gen_ai.operation.name"] for span in found.of("plan")] == ["plan"]


def test_second_version_of_plan_has_its_own_span() -> None:
    plans = iter((("s1 = send(text=input.text)", "return s1"), LOUD))
    current: list[tuple[str, ...]] = []

    def answer(call: CallRequest) -> str:
        if not call.inputs["plan"] or not current:
            current[:] = [next(plans, LOUD)]
        return str(router(*current[0])(call))

    broken = CallError(code="T003", reason="it is gone")
    found = trace_run(WORK % "str\n    replans: 1", TEXTS, {"router": answer, "send": broken})
    assert [(span.attributes or {})["orchestra.plan.version"] for span in found.of("plan")] == [1, 2]
    assert len({span.context.span_id for span in found.spans}) == len(found.spans)


def test_plan_ends_with_the_last_call_of_its_router() -> None:
    found = trace_run(WORK % "str", TEXTS, {"router": CallError(code="F212", reason="unknown model")})
    assert found.outline == (
        """
0-0.5 invoke_workflow staged run.status=failed F212!
  0-0.5 plan solve
    0-0.5 invoke_agent router solve#1/line F212!
""".strip()
    )


def test_question_to_a_person_is_a_span_until_the_answer() -> None:
    async def scene(clock: VirtualClock) -> str:
        process = Process(clock, SimulatedWorkers(ANSWERS, clock=clock), MemoryStore())
        run = process.start(program(ASK), {})
        await run.wait_until_blocked()
        await clock.sleep(60.0)
        (asked,) = run.questions
        await process.journal.send(
            run.id, InboxMessage(kind="answer", node="q", value="yes", question_digest=asked.question_digest)
        )
        await run.wait()
        await process.engine.close()
        return outline(process.spans)

    assert run_simulated(scene, 0) == (
        """
0-60 invoke_workflow staged run.status=done run.resumptions=1
  * run_resumed
  0-60 ask q question.outcome=answered
""".strip()
    )


def test_crash_leaves_no_gap_and_no_duplicate_in_the_trace() -> None:
    async def scene(clock: VirtualClock) -> tuple[str, list[int], set[int]]:
        workers, store = SimulatedWorkers(ANSWERS, clock=clock, latency=0.5), MemoryStore()
        first = Process(clock, workers, store)
        run = first.start(program(MAP), {"text": "a"})
        await clock.sleep(0.75)
        await first.journal.close()
        await first.engine.close()
        await clock.sleep(10.0)
        second = Process(clock, workers, store)
        resumed = await second.engine.resume(program(MAP), run.id)
        await resumed.wait()
        await second.engine.close()
        spans = [*first.spans, *second.spans]
        return outline(spans), [span.context.span_id for span in spans], {span.context.trace_id for span in spans}

    text, ids, traces = run_simulated(scene, 0)
    assert text == (
        """
0-11.25 invoke_workflow staged run.status=done run.resumptions=1
  * run_resumed
  0-0.5 execute_tool split words
  0.5-0.5 invoke_agent writer loud[0] interrupted!
  10.75-11.25 invoke_agent writer loud[0]
    10.75-11.25 chat simulated loud[0]
""".strip()
    )
    assert len(set(ids)) == len(ids)
    assert len(traces) == 1


def test_run_dropped_from_memory_goes_on_with_the_same_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.telemetry.tracing.MAX_RUNS", 1)

    async def scene(clock: VirtualClock) -> str:
        process = Process(clock, SimulatedWorkers(ANSWERS, clock=clock), MemoryStore())
        run = process.start(program(ASK), {})
        await run.wait_until_blocked()
        await process.start(program(MAP), {"text": "a"}).wait()
        (asked,) = run.questions
        message = InboxMessage(kind="answer", node="q", value="yes", question_digest=asked.question_digest)
        await process.journal.send(run.id, message)
        await run.wait()
        await process.engine.close()
        return outline([span for span in process.spans if span.context.trace_id == own_trace_id(run.id)])

    assert run_simulated(scene, 0).splitlines() == [
        "0-0 invoke_workflow staged run.status=done run.resumptions=1",
        "  * run_resumed",
        "  0-0 ask q question.outcome=answered",
    ]


def test_run_cancelled_without_its_program_has_its_span() -> None:
    async def scene(clock: VirtualClock) -> str:
        store = MemoryStore()
        first, second = (Process(clock, SimulatedWorkers(ANSWERS, clock=clock), store) for _ in range(2))
        run = first.start(program(ASK), {})
        await run.wait_until_blocked()
        await second.engine.terminate(run.id, "ada")
        await first.engine.close()
        await second.engine.close()
        return outline(second.spans)

    assert run_simulated(scene, 0) == (
        """
0-0 invoke_workflow staged run.status=cancelled E008!
  * cancel_requested
  0-0 ask q question.outcome=no answer
""".strip()
    )


def test_crash_after_any_event_leaves_each_span_once() -> None:
    """The spans of both processes are those of an undisturbed run, besides interrupted attempts."""
    compiled = program(EVERYTHING)
    whole = play(EVERYTHING, {"text": "a b"}, latency=0.5)
    expected = Counter(
        (event.node, event.attempt) for event in whole.events if isinstance(event, AttemptStarted | AttemptFinished)
    )

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(whole.events) - 1):
            store = MemoryStore()
            first = Process(clock, SimulatedWorkers(ANSWERS, clock=clock), store)
            started = whole.events[0]
            assert isinstance(started, RunStarted)
            for event in whole.events[:cut]:
                first.tracer.observe(started.run, event)
            first.journal.append(started.run, whole.events[:cut])
            await first.journal.close()
            second = Process(clock, SimulatedWorkers(ANSWERS, clock=clock), store)
            await (await second.engine.resume(compiled, started.run)).wait()
            await second.engine.close()
            spans = [*first.spans, *second.spans]
            assert len({span.context.span_id for span in spans}) == len(spans), cut
            called = Counter(
                (place(span), (span.attributes or {})["orchestra.attempt"])
                for span in spans
                if span.name.startswith(("invoke_agent", "execute_tool"))
                and (span.attributes or {}).get("error.type") != INTERRUPTED
            )
            assert called.keys() == expected.keys(), cut
            assert set(called.values()) == {1}, cut

    run_simulated(scene, 0)


@pytest.mark.parametrize("seed", range(8))
def test_spans_are_within_their_parents_and_unique(seed: int) -> None:
    found = trace_run(EVERYTHING, {"text": "a b c"}, seed=seed, latency=(0.1, 2.0), faults=FAULTS)
    spans = {span.context.span_id: span for span in found.spans}
    assert len(spans) == len(found.spans)
    roots = [span for span in found.spans if span.parent is None]
    assert [span.name for span in roots] == ["invoke_workflow staged"]
    for span in found.spans:
        if span.parent is not None:
            outer = spans[span.parent.span_id]
            assert (outer.start_time or 0) <= (span.start_time or 0) <= (span.end_time or 0) <= (outer.end_time or 0)
    called = [span for span in found.spans if span.name.startswith(("invoke_agent", "execute_tool"))]
    assert len(called) == len(found.workers.calls)


def test_attributes_are_those_of_the_pinned_conventions() -> None:
    published = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    found = trace_run(READ % "abstain", {"text": "built in 1889"}, {"reader": QUOTED}, content="internal")
    used = {name for span in found.spans for name in span.attributes or {}}
    used |= {name for span in found.spans for event in span.events for name in event.attributes or {}}
    assert {name for name in used if name.startswith("gen_ai.")} <= published
    assert {name.partition(".")[0] for name in used} == {"gen_ai", "orchestra"}
    assert Schemas.V1_44_0.value == conventions.SCHEMA_URL
    (chat,) = found.of("chat simulated")
    assert chat.kind is SpanKind.CLIENT
    said = dict(chat.attributes or {})
    assert (said["gen_ai.operation.name"], said["gen_ai.workflow.name"], said["gen_ai.request.model"]) == (
        "chat",
        "staged",
        "simulated",
    )
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (11, 9)
    (agent,) = found.of("invoke_agent reader")
    assert dict(agent.attributes or {})["gen_ai.agent.version"] == "digest-of-reader"


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls"])
def test_finish_reason_is_that_of_the_response(reason: str) -> None:
    body = {"choices": [{"message": {"content": '{"finish_reason": "stop"}'}, "finish_reason": reason}], "usage": {}}
    received = json.dumps(body).encode()
    reply = CallResult(value="A", usage=Usage(prompt_tokens=1), model="m", sent=b"{}", received=received)
    (chat,) = trace_run(MAP, {"text": "a"}, {"writer": reply}).of("chat m")
    assert dict(chat.attributes or {})["gen_ai.response.finish_reasons"] == [reason]
