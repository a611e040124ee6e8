"""Content of runs is in no exported byte by default, in any case below; a setting adds it, up to a label."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from orchestra.core.events import Usage
from orchestra.core.labels import Label
from orchestra.core.protocols import CallError, CallResult, InboxMessage
from orchestra.journal.memory import MemoryStore
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.stage import ANSWERS, program
from tests.engine.test_plan_runs import WORK, router
from tests.telemetry.test_spans import MAP, READ
from tests.telemetry.traces import Process, trace_run

CANARY = "canary-5b1e"
PROMPT = json.dumps({"messages": [{"role": "user", "content": f"say {CANARY}"}]}).encode()
RESPONSE = json.dumps({"choices": [{"message": {"content": f"{CANARY}!"}, "finish_reason": CANARY}]}).encode()
ANSWERED = CallResult(value=f"{CANARY}!", usage=Usage(prompt_tokens=3), model="m", sent=PROMPT, received=RESPONSE)
FAILED = CallError(
    code="T003",
    reason=f"it raised ValueError: {CANARY}",
    hint=f"not {CANARY}",
    frames=(f"tools.py:1 in {CANARY}",),
    sent=PROMPT,
    received=RESPONSE,
    model="m",
)
QUOTES = {"answer": CANARY, "quote": CANARY}
SCENES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "prompt and output": (MAP, {"text": CANARY}, {"writer": ANSWERED}),
    "error of an agent": (MAP, {"text": CANARY}, {"writer": FAILED}),
    "error of a tool": (MAP, {"text": CANARY}, {"split": FAILED}),
    "verdict that fails": (READ % "abstain", {"text": "nothing"}, {"reader": QUOTES}),
    "verdict that passes": (READ % "abstain", {"text": CANARY}, {"reader": QUOTES}),
    "plan": (
        WORK % "str",
        {"text": CANARY},
        {"router": router(f's1 = writer(text="{CANARY}")', "return s1"), "writer": ANSWERED},
    ),
    "rejected line of a plan": (WORK % "str", {"text": CANARY}, {"router": router(f"{CANARY} nonsense")}),
}


def exported(scene: str, content: Label | None, label: Label = "internal") -> bytes:
    text, inputs, answers = SCENES[scene]
    found = trace_run(text, inputs, answers, content=content, request={"label": label})
    assert found.spans
    data: bytes = encode_spans(found.spans).SerializeToString()
    return data


@pytest.mark.parametrize("scene", SCENES)
def test_content_is_not_exported_by_default(scene: str) -> None:
    assert CANARY.encode() not in exported(scene, None)


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene != "rejected line of a plan"])
def test_content_is_exported_if_the_setting_allows_the_label(scene: str) -> None:
    assert CANARY.encode() in exported(scene, "internal")


@pytest.mark.parametrize("scene", SCENES)
def test_content_of_a_stricter_label_is_not_exported(scene: str) -> None:
    assert CANARY.encode() not in exported(scene, "internal", label="restricted")


def test_question_and_answer_of_a_person_are_not_exported() -> None:
    asks = f'output: ${{q}}\nnodes:\n  q: {{ask: "{CANARY}?"}}\n'

    async def scene(clock: VirtualClock) -> bytes:
        process = Process(clock, SimulatedWorkers(ANSWERS, clock=clock), MemoryStore())
        run = process.start(program(asks), {})
        await run.wait_until_blocked()
        (asked,) = run.questions
        message = InboxMessage(kind="answer", by=CANARY, node="q", value=CANARY, question_digest=asked.question_digest)
        await process.journal.send(run.id, message)
        await run.wait()
        await process.engine.close()
        data: bytes = encode_spans(process.spans).SerializeToString()
        return data

    assert CANARY.encode() not in run_simulated(scene, 0)


def test_messages_of_a_chat_are_structured() -> None:
    (chat,) = trace_run(MAP, {"text": "a"}, {"writer": ANSWERED}, content="internal").of("chat m")
    said = dict(chat.attributes or {})
    assert json.loads(str(said["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": f"say {CANARY}"}]}
    ]
    assert json.loads(str(said["gen_ai.output.messages"])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": f"{CANARY}!"}]}
    ]


def test_text_that_is_not_unicode_does_not_lose_the_batch() -> None:
    broken = CallResult(value="\ud800", usage=Usage(prompt_tokens=3), model="m\ud800", sent=b"\xff", received=b"\xff")
    found = trace_run(MAP, {"text": "a"}, {"writer": broken}, content="internal")
    assert encode_spans(found.spans).SerializeToString()
