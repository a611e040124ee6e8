"""Dispatch: calls to agents become requests to the best server, responses become typed values, and errors
are values.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.contract import Catalog
from orchestra.core.clock import SystemClock
from orchestra.core.errors import InputErrors
from orchestra.core.events import AttemptFinished
from orchestra.core.labels import Label
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.fleet.config import FleetLimits, parse_config
from orchestra.fleet.supervisor.folders import Folders
from orchestra.journal.memory import MemoryJournal
from orchestra.testing.fake_vllm.server import SimulatedServer
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.yaml.reader import read

from .calling import ANSWER, TEXT, WRITER, call, only, opened, says, streamed
from .conftest import Visit, chat_answer, endpoints, eventually, local_config, raw_server

ROUTED = """\
schema: orchestra/v1
name: routed
input: {text: str}
output: ${reply}
nodes:
  reply: {agent: writer, with: {text: "${input.text}"}, escalate: "${input.text == 'hard'}"}
"""


async def test_call_returns_typed_value_cost_and_bytes() -> None:
    async with raw_server(says('{"answer": "yes"}')) as server, opened(endpoints(server.url)) as fleet:
        done = await only(fleet, call())
    assert isinstance(done, CallResult)
    assert done.value == {"answer": "yes"}
    assert (done.usage.prompt_tokens, done.usage.cached_tokens, done.usage.output_tokens, done.usage.calls) == (
        11,
        4,
        3,
        1,
    )
    assert (done.server, done.model) == ("s0", "m")
    assert done.sent == server.visits[0].body
    assert json.loads(done.sent)["structured_outputs"]["json"]["required"] == ["answer"]


async def test_call_prefix_is_continued_under_grammar() -> None:
    given = {"type": "object", "properties": {name: {"type": "string"} for name in ("text", "begun", "rules")}}
    prompt = "{{ text }}\n<!-- assistant -->\n{{ begun }}"
    drafter = Card.declare("drafter", input=given, output={"type": "string"}, prompt=prompt, grammar="rules")
    rules = {"rules": 'start: "b"'}
    async with (
        raw_server(says("b")) as server,
        opened(endpoints(server.url, structured_outputs="guidance"), {"drafter": drafter}) as fleet,
    ):
        for begun in ("a", ""):
            await only(fleet, call("drafter", inputs={"text": "hello", "begun": begun, **rules}))
    first, second = (json.loads(visit.body) for visit in server.visits)
    assert [one["role"] for one in first["messages"]] == ["user", "assistant"]
    assert (first["continue_final_message"], first["add_generation_prompt"]) == (True, False)
    assert first["structured_outputs"] == {"grammar": 'start: "b"'}
    assert [one["role"] for one in second["messages"]] == ["user"]
    assert "continue_final_message" not in second


async def test_samples_have_temperature_and_own_seeds() -> None:
    async with raw_server(says('{"answer": "yes"}')) as server, opened(endpoints(server.url)) as fleet:
        for sample in (0, 1, 2):
            await only(fleet, call(sample=sample))
    bodies = [json.loads(visit.body) for visit in server.visits]
    assert [(body["temperature"], body.get("seed")) for body in bodies] == [(0.0, None), (0.7, 1), (0.7, 2)]


@pytest.mark.parametrize("text", ["no json", '{"answer": 5}', '{"answer": "a", "answer": "b"}', ""])
async def test_call_wrong_type_is_retryable_error(text: str) -> None:
    async with raw_server(says(text)) as server, opened(endpoints(server.url)) as fleet:
        refused = await only(fleet, call())
    assert isinstance(refused, CallError)
    assert refused.code.startswith("M")
    assert refused.retryable
    assert refused.usage.output_tokens == 3, "it was paid for"
    assert refused.received == chat_answer(text)


async def test_function_calls_use_functions_of_the_call() -> None:
    call_type = {"type": "object", "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}}}
    output = {"type": "object", "properties": {"calls": {"type": "array", "items": call_type}}, "required": ["calls"]}
    inputs = {"type": "object", "properties": {"functions": {"type": "array"}}, "required": ["functions"]}
    card = Card.declare("caller", input=inputs, output=output, prompt="Call.", calls={"calls": "functions"})
    now = {"name": "now", "parameters": {"type": "object", "properties": {}}}
    text = '{"calls": [{"name": "now", "arguments": {}}]}'
    async with (
        raw_server(says(text)) as server,
        opened(endpoints(server.url), {"caller": card}, constraint="none") as fleet,
    ):
        done = await only(fleet, call("caller", inputs={"functions": [now]}))
        phantom = await only(fleet, call("caller", inputs={"functions": [{"name": "later"}]}))
        none = await only(fleet, call("caller", inputs={"functions": "now"}))
    assert isinstance(done, CallResult)
    assert [(refused.code, refused.retryable) for refused in (phantom, none) if isinstance(refused, CallError)] == [
        ("M002", True),
        ("A016", False),
    ]
    assert len(server.visits) == 2, "what lists no functions is refused before a model is asked"


def weighed(folder: Path, adapter: str | None) -> Card:
    """Returns a card with probabilities. Its calibration turns every answer to `no`; no server here has the base of its
    adapter.
    """
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "manifest.json").write_text('{"base": "other", "sha256": "aa"}', "utf-8")
    (folder / "prompt.md").write_text("{{ question }}", "utf-8")
    (folder / "agent.yaml").write_text(
        """{name: judge, input: {question: str}, output: {label: "Literal['yes', 'no']", p: float | null},
            calibration: c.json,
            elsewhere: prompt, computed: {p: {probability: 'yes'}}}""",
        "utf-8",
    )
    calibration = {
        "choices": ["yes", "no"],
        "trust": {"model": 1.0},
        "bias": [0.0, 9.0],
        "adapter": "aa" if adapter else "",
    }
    (folder / "c.json").write_text(json.dumps(calibration), "utf-8")
    return Card.load(folder).with_settings(adapter=adapter)


@pytest.mark.parametrize(("adapter", "label", "sure"), [(None, "no", 0.0005), ("adapter", "yes", 0.8)])
async def test_call_logprobs_and_calibration_of_adapter(
    tmp_path: Path, adapter: str | None, label: str, sure: float
) -> None:
    said = json.loads(chat_answer("yes"))
    top = [{"token": word, "logprob": math.log(share)} for word, share in (("yes", 0.8), ("no", 0.2))]
    said["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}

    async def visited(visit: Visit) -> None:
        await visit.answer(json.dumps(said).encode())

    async with (
        raw_server(visited) as server,
        opened(endpoints(server.url), {"judge": weighed(tmp_path, adapter)}) as fleet,
    ):
        done = await only(fleet, call("judge", inputs={"question": "?"}))
    assert isinstance(done, CallResult), done
    assert done.value == {"label": label, "p": pytest.approx(sure, rel=0.1)}
    assert done.confidence == pytest.approx(sure if label == "yes" else 1 - sure, rel=0.1), (
        "it is that of the label which stands"
    )
    sent = json.loads(server.visits[0].body)
    assert (sent["logprobs"], sent["top_logprobs"], sent["structured_outputs"]) == (True, 20, {"choice": ["yes", "no"]})


@pytest.mark.parametrize(("choices", "most"), [(("yes", "no"), 1), (("no", "not stated"), 8)])
async def test_call_choice_stops_after_deciding_token(tmp_path: Path, choices: tuple[str, str], most: int) -> None:
    (tmp_path / "prompt.md").write_text("{{ question }}", "utf-8")
    (tmp_path / "agent.yaml").write_text(
        f"""{{name: judge, input: {{question: str}}, output: {{label: "Literal{list(choices)}", p: float | null}},
            max_output: 8,
            computed: {{p: {{probability: '{choices[0]}'}}}}}}""",
        "utf-8",
    )
    said = json.loads(chat_answer(choices[1][:2] if most == 1 else choices[1]))
    said["choices"][0]["finish_reason"] = "length" if most == 1 else "stop"
    top = [{"token": choices[1][:2], "logprob": math.log(0.7)}, {"token": choices[0][:2], "logprob": math.log(0.3)}]
    said["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}

    async def visited(visit: Visit) -> None:
        assert json.loads(visit.body)["max_tokens"] == most
        await visit.answer(json.dumps(said).encode())

    async with raw_server(visited) as server, opened(endpoints(server.url), {"judge": Card.load(tmp_path)}) as fleet:
        done = await only(fleet, call("judge", inputs={"question": "?"}))
    assert isinstance(done, CallResult), done
    assert done.value["label"] == choices[1]
    if most == 1:
        assert done.value["p"] == pytest.approx(0.3)
        assert done.confidence == pytest.approx(0.7)


@pytest.mark.parametrize("stream", [False, True])
async def test_call_logprobs_not_requested_for_prose(stream: bool) -> None:
    async with SimulatedServer("m", answer=lambda request: '{"answer": "yes"}') as server:
        async with opened(endpoints(server.url)) as fleet:
            read, written = [await only(fleet, call(name), stream) for name in ("reader", "writer")]
        async with opened(endpoints(server.url, dialect="openai")) as fleet:
            elsewhere = await only(fleet, call("reader"))
    assert [request.body.get("logprobs") for request in server.app.requests] == [True, None, None]
    assert isinstance(read, CallResult)
    assert isinstance(written, CallResult)
    assert isinstance(elsewhere, CallResult)
    rows = [
        json.loads(line.removeprefix(b"data: "))
        for line in read.received.splitlines()
        if line.startswith((b"{", b"data: {"))
    ]
    logprobs = [
        one["logprob"]
        for row in rows
        for choice in row["choices"]
        for one in (choice.get("logprobs") or {}).get("content", [])
    ]
    assert logprobs
    assert read.confidence == pytest.approx(math.exp(sum(logprobs)))
    assert (written.confidence, elsewhere.confidence) == (None, None)


async def test_call_max_output_never_exceeds_card() -> None:
    async with raw_server(says("x")) as server, opened(endpoints(server.url)) as fleet:
        for most in (None, 7, 100_000):
            await only(fleet, call("writer", max_output=most))
    assert [json.loads(visit.body)["max_tokens"] for visit in server.visits] == [256, 7, 256]


async def test_call_text_is_read_before_the_reply() -> None:
    rows = [{"model": "m", "choices": [{"delta": {"content": text}}]} for text in ("hel", "lo")]
    rows.append({"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = b"".join(b"data: " + json.dumps(row).encode() + b"\n\n" for row in rows) + b"data: [DONE]\n\n"
    async with raw_server(lambda visit: visit.answer(body)) as server, opened(endpoints(server.url)) as fleet:
        pieces, done = await streamed(fleet, call("writer"))
    assert pieces == ["hel", "lo"]
    assert isinstance(done, CallResult)
    assert done.value == "hello"


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelled_call_closes_connection(stream: bool) -> None:
    came, closed = asyncio.Event(), asyncio.Event()

    async def play(visit: Visit) -> None:
        if stream:
            await visit.say(
                b'HTTP/1.1 200 OK\r\n\r\ndata: {"model": "m", "choices": [{"delta": {"content": "a"}}]}\n\n'
            )
        came.set()
        await visit.gone()
        closed.set()

    def stop(piece: str) -> None:
        pieces.append(piece)
        task.cancel()

    pieces = list[str]()
    async with raw_server(play) as server, opened(endpoints(server.url)) as fleet:
        task = asyncio.create_task(fleet.call(call("writer"), stop if stream else None))
        await came.wait()
        if not stream:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 60)
    assert pieces == ["a"] * stream


async def test_call_unknown_agent_has_suggestion() -> None:
    async with opened(endpoints("http://127.0.0.1:1")) as fleet:
        refused = await only(fleet, call("raeder"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F201", False)
    assert "did you mean 'reader'?" in refused.reason


async def test_call_unknown_model_has_hint() -> None:
    card = Card.declare("reader", input=TEXT, output=ANSWER, prompt="{{ text }}", model="bas")
    async with opened(endpoints("http://127.0.0.1:1"), {"reader": card}) as fleet:
        refused = await only(fleet, call())
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F201", False)
    assert "did you mean 'base'?" in refused.hint


async def test_call_label_selects_cleared_server() -> None:
    async with raw_server(says("far")) as far, raw_server(says("near")) as near:
        config = endpoints(far.url, near.url)
        servers = {"s0": config.servers["s0"].model_copy(update={"label": "public"}), "s1": config.servers["s1"]}
        async with opened(config.model_copy(update={"servers": servers})) as fleet:
            for _ in range(4):
                done = await only(fleet, call("writer", label="restricted"))
                assert isinstance(done, CallResult)
    assert (len(far.visits), len(near.visits)) == (0, 4)


@pytest.mark.parametrize(("card_label", "server_label"), [("restricted", "internal"), ("internal", "restricted")])
async def test_call_no_cleared_server_sends_nothing(card_label: str, server_label: str) -> None:
    card = Card.declare("reader", input=TEXT, output=ANSWER, prompt="{{ text }}", label=card_label)
    async with (
        raw_server(says("x")) as server,
        opened(endpoints(server.url, label=server_label), {"reader": card}) as fleet,
    ):
        refused = await only(fleet, call(label="restricted"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable, server.visits) == ("F202", False, [])


async def test_call_unseen_request_goes_to_next_server() -> None:
    async with raw_server(says("x")) as gone:
        pass
    async with raw_server(says("here")) as here, opened(endpoints(gone.url, here.url)) as fleet:
        done = await only(fleet, call("writer", timeout=500))
    assert isinstance(done, CallResult)
    assert (done.value, done.server) == ("here", "s1")


async def test_call_seen_request_is_not_resent() -> None:
    oops = raw_server(lambda visit: visit.answer(b"", "500 Oops"))
    async with oops as one, raw_server(says("here")) as two, opened(endpoints(one.url, two.url)) as fleet:
        refused = await only(fleet, call("writer"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable, two.visits) == ("F208", True, [])


async def test_calls_spread_by_server_load() -> None:
    release = asyncio.Event()

    async def slow(visit: Visit) -> None:
        await release.wait()
        await visit.answer(chat_answer("x"))

    async with raw_server(slow) as one, raw_server(slow) as two, opened(endpoints(one.url, two.url)) as fleet:
        tasks = [asyncio.create_task(only(fleet, call("writer"))) for _ in range(6)]

        async def all_came() -> bool:
            return len(one.visits) + len(two.visits) == 6

        await eventually(all_came)
        release.set()
        await asyncio.gather(*tasks)
    assert (len(one.visits), len(two.visits)) == (3, 3)


async def test_call_escalated_uses_larger_model() -> None:
    async with raw_server(says("small")) as small, raw_server(says("large")) as large:
        config = endpoints(small.url, large.url).model_copy(
            update={"models": {"base": "s0", "big": "s1"}, "escalate": "big"}
        )
        async with opened(config) as fleet:
            values = [await only(fleet, call("writer", tier=tier)) for tier in (0, 1)]
    assert [done.value for done in values if isinstance(done, CallResult)] == ["small", "large"]


@pytest.mark.parametrize(("label", "answer", "visits"), [("public", "large", (0, 1)), ("internal", "small", (1, 0))])
async def test_call_escalated_respects_label(label: Label, answer: str, visits: tuple[int, int]) -> None:
    graph = read(ROUTED, "routed.yaml").graph
    async with raw_server(says("small")) as small, raw_server(says("large")) as large:
        config = endpoints(small.url, large.url).model_copy(
            update={"models": {"base": "s0", "big": "s1"}, "escalate": "big"}
        )
        servers = {"s0": config.servers["s0"], "s1": config.servers["s1"].model_copy(update={"label": "public"})}
        async with opened(config.model_copy(update={"servers": servers})) as fleet:
            engine = Engine(SystemClock(), MemoryJournal(), fleet)
            program = compile_graph(graph, Catalog(agents={"writer": WRITER.contract}))
            finished = await engine.start(
                program, RunRequest(inputs={"text": "hard"}, graph="0" * 32, label=label)
            ).wait()
            await engine.close()
    assert isinstance(finished.outcome, ValueOutcome)
    assert (finished.outcome.value, (len(small.visits), len(large.visits))) == (answer, visits)


@pytest.mark.parametrize(("label", "answer", "visits"), [("public", "large", (1, 0)), ("internal", "largest", (0, 1))])
async def test_escalation_skips_forbidden_endpoint(label: Label, answer: str, visits: tuple[int, int]) -> None:
    """Three models: a small one, one for public data only, and one for more data. A rejected answer is escalated."""
    text = ROUTED.replace(
        ", escalate: \"${input.text == 'hard'}\"", ", checks: [numbers], against: none, otherwise: [escalate]"
    )
    graph = read(text, "routed.yaml").graph
    async with raw_server(says("1")) as small, raw_server(says("large")) as large, raw_server(says("largest")) as top:
        config = endpoints(small.url, large.url, top.url)
        models: dict[str, str] = {"base": "s0", "outside": "s1", "inside": "s2"}
        config = config.model_copy(update={"models": models, "escalate": ("outside", "inside")})
        servers = {**config.servers, "s1": config.servers["s1"].model_copy(update={"label": "public"})}
        async with opened(config.model_copy(update={"servers": servers})) as fleet:
            engine = Engine(SystemClock(), MemoryJournal(), fleet)
            program = compile_graph(graph, Catalog(agents={"writer": WRITER.contract}))
            run = engine.start(
                program, RunRequest(inputs={"text": "hard"}, graph="0" * 32, label=label, tiers=config.tiers)
            )
            finished = await run.wait()
            refused = [event.reason for event in run.log if isinstance(event, AttemptFinished) and event.error]
            await engine.close()
    assert isinstance(finished.outcome, ValueOutcome)
    assert finished.outcome.value == answer
    assert (len(small.visits), len(large.visits), len(top.visits)) == (1, *visits)
    assert refused == (
        [] if label == "public" else ["data labelled 'internal' may go to no server of the model 'outside'"]
    )


@pytest.mark.parametrize(
    ("escalate", "said"), [("[big, base]", ""), ("[big, bgi]", "did you mean 'big'"), ("[big, big]", "twice")]
)
def test_escalate_lists_known_models(escalate: str, said: str) -> None:
    text = "schema: orchestra/fleet/v1\nname: f\nservers: {s: {endpoint: 'http://127.0.0.1:9/v1', model: m}}\n"
    text += "models: {base: s, big: s}\n"
    if not said:
        assert parse_config(f"{text}escalate: {escalate}\n", "f.yaml").tiers == ("big", "base")
        return
    with pytest.raises(InputErrors) as caught:
        parse_config(f"{text}escalate: {escalate}\n", "f.yaml")
    assert said in str(caught.value.errors[0])


async def test_call_without_larger_model_is_coded_error() -> None:
    async with opened(endpoints("http://127.0.0.1:1")) as fleet:
        refused = await only(fleet, call("writer", tier=1))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F220", False)


async def test_tenant_salt_is_sent_to_vllm_only() -> None:
    async with raw_server(says("x")) as server:
        for dialect in ("vllm", "ollama"):
            async with opened(endpoints(server.url, dialect=dialect), tenant="acme") as fleet:
                await only(fleet, call("writer", priority=3))
    salts = [json.loads(visit.body).get("cache_salt") for visit in server.visits]
    assert salts == ["acme", None]
    assert not any("priority" in json.loads(visit.body) for visit in server.visits), (
        "endpoints may not schedule by priority"
    )


@pytest.mark.parametrize(
    ("order", "expected"), [("programs", ["a1", "a2", "b1", "c1"]), ("fifo", ["a1", "b1", "c1", "a2"])]
)
async def test_waiting_requests_run_by_run(order: str, expected: list[str]) -> None:
    came, go = asyncio.Event(), asyncio.Event()

    async def play(visit: Visit) -> None:
        came.set()
        await go.wait()
        await visit.answer(chat_answer("x"))

    async with raw_server(play) as server:
        config = endpoints(server.url, limits=FleetLimits(in_flight=1)).model_copy(update={"order": order})
        async with opened(config) as fleet:
            asked = [
                asyncio.create_task(only(fleet, call("writer", run=name[0], inputs={"text": name})))
                for name in ("a1", "b1", "c1", "a2")
            ]
            await came.wait()
            await asyncio.sleep(0)
            go.set()
            await asyncio.gather(*asked)
    assert [
        json.loads(visit.body)["messages"][-1]["content"].removeprefix("Say: ") for visit in server.visits
    ] == expected


async def test_call_prefers_server_with_cached_prefix() -> None:
    async with (
        raw_server(says("x")) as first,
        raw_server(says("x")) as second,
        opened(endpoints(first.url, second.url)) as fleet,
    ):
        for asked in ("ab", "b", "a", "b"):
            await asyncio.gather(
                *(only(fleet, call("writer", run=name, inputs={"text": 2000 * name})) for name in asked)
            )
    seen = [
        [json.loads(visit.body)["messages"][-1]["content"][-1] for visit in server.visits] for server in (first, second)
    ]
    assert seen == [["a", "a"], ["b", "b", "b"]]


async def test_prefixes_of_tenants_and_adapters_differ() -> None:
    found = set()
    for tenant in ("", "acme"):
        async with opened(endpoints("http://127.0.0.1:1"), tenant=tenant) as fleet:
            found |= {
                fleet._prompt_prefix([{"role": "user", "content": 600 * "x"}], adapter) for adapter in ("", "skill")
            }
    assert len(found) == 4


async def test_call_feedback_reaches_prompt() -> None:
    async with raw_server(says("x")) as server, opened(endpoints(server.url)) as fleet:
        await only(fleet, call("writer", feedback=("the quote is not in the text",)))
    assert "the quote is not in the text" in json.loads(server.visits[0].body)["messages"][-1]["content"]


async def test_mode_none_starts_no_local_server(folders: Folders) -> None:
    async with opened(local_config("m")) as fleet:
        refused = await only(fleet, call())
    assert isinstance(refused, CallError)
    assert (refused.code, refused.hint) == ("F216", "orchestra fleet start")


async def test_call_uses_card_version_of_run() -> None:
    older = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="Once: {{ text }}")
    async with raw_server(says("x")) as server, opened(endpoints(server.url), kept={older.digest: older}) as fleet:
        for version in (older.digest, WRITER.digest, ""):
            await only(fleet, call("writer", version=version))
    prompts = [json.loads(visit.body)["messages"][0]["content"] for visit in server.visits]
    assert [prompt.partition(":")[0] for prompt in prompts] == ["Once", "Say", "Say"]


async def test_call_card_added_after_open_is_used() -> None:
    older = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="Once: {{ text }}")
    kept: dict[str, Card] = {}
    async with raw_server(says("x")) as server, opened(endpoints(server.url), kept=kept) as fleet:
        kept[older.digest] = older
        await only(fleet, call("writer", version=older.digest))
    assert json.loads(server.visits[0].body)["messages"][0]["content"].startswith("Once: ")


async def test_call_unknown_version_is_refused() -> None:
    async with raw_server(says("x")) as server, opened(endpoints(server.url)) as fleet:
        refused = await only(fleet, call("writer", version="0" * 32))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.hint, refused.retryable, server.visits) == ("F221", "orchestra runs fork", False, [])


def tokens(*found: int) -> Callable[[Visit], Awaitable[None]]:
    return lambda visit: visit.answer(json.dumps({"count": len(found), "max_model_len": 9, "tokens": found}).encode())


async def test_count_tokens_counts_sent_chat() -> None:
    async with raw_server(tokens(1, 2, 3)) as server, opened(endpoints(server.url)) as fleet:
        assert await fleet.count_tokens(call("writer", feedback=("no",))) == 3
        await only(fleet, call("writer", feedback=("no",)))
    counted, asked = (json.loads(visit.body) for visit in server.visits)
    assert server.visits[0].head.startswith("POST /tokenize ")
    assert counted == {"model": "m", "messages": asked["messages"], "add_generation_prompt": True}


@pytest.mark.parametrize(
    ("server", "what"),
    [
        ({}, call("nobody")),
        ({}, call("writer", version="0" * 32)),
        ({"label": "public"}, call("writer", label="internal")),
        ({"dialect": "openai"}, call("writer")),
    ],
    ids=["no agent", "no such version", "no clearance", "no vLLM"],
)
async def test_count_tokens_forbidden_is_not_sent(server: dict[str, Any], what: CallRequest) -> None:
    async with raw_server(tokens(1)) as raw, opened(endpoints(raw.url, **server)) as fleet:
        assert await fleet.count_tokens(what) is None
    assert raw.visits == []


@pytest.mark.parametrize("answer", [b"", b"no json", b'{"count": 2, "tokens": [1]}', b'{"count": "2"}'])
async def test_count_tokens_unsupported_returns_none(answer: bytes) -> None:
    async with raw_server(lambda visit: visit.answer(answer)) as server, opened(endpoints(server.url)) as fleet:
        assert await fleet.count_tokens(call("writer")) is None


async def test_count_tokens_is_within_estimate() -> None:
    async with SimulatedServer("m") as server, opened(endpoints(server.url)) as fleet:
        for text in ("", "hello, world", "é" * 50, "1 2 3 " * 40):
            asked = call("writer", inputs={"text": text})
            counted = await fleet.count_tokens(asked)
            assert counted is not None
            assert 0 < counted <= fleet.estimate(asked).prompt_tokens


# With the supervisor, and small scripts instead of vLLM.
