"""Streamed calls: their requests are streamed, and their results do not change."""

from __future__ import annotations

import json
import math
from pathlib import Path

from orchestra import Orchestra
from orchestra.agents.card import Card
from orchestra.core.protocols import CallResult
from orchestra.core.settings import Settings
from orchestra.testing.fake_vllm.server import SimulatedServer
from tests.fleet.calling import call, only, opened, streamed
from tests.fleet.conftest import Visit, chat_answer, endpoints, raw_server

SAYS = {"first": '{"best": "a", "why": "it is short"}', "second": "b"}


async def test_call_streams_only_if_requested() -> None:
    async with (
        SimulatedServer("m", answer=lambda request: "hello there") as server,
        opened(endpoints(server.url)) as fleet,
    ):
        texts, done = await streamed(fleet, call("writer"))
        other = await fleet.call(call("writer"))
    assert ("".join(texts), len(texts) > 1) == ("hello there", True)
    assert [one.value for one in (done, other) if isinstance(one, CallResult)] == ["hello there"] * 2
    assert [request.body.get("stream") for request in server.app.requests] == [True, None]


async def test_streamed_choice_costs_no_extra_token(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("{{ question }}", "utf-8")
    (tmp_path / "agent.yaml").write_text(
        """{name: judge, input: {question: str}, output: {label: "Literal['yes', 'no']", p: float | null},
            max_output: 8,
            computed: {p: {probability: 'yes'}}}""",
        "utf-8",
    )
    said = json.loads(chat_answer("ye"))
    said["choices"][0]["finish_reason"] = "length"
    said["choices"][0]["logprobs"] = {"content": [{"token": "ye", "logprob": math.log(0.7), "top_logprobs": []}]}

    async def visited(visit: Visit) -> None:
        await visit.answer(json.dumps(said).encode())

    async with raw_server(visited) as server, opened(endpoints(server.url), {"judge": Card.load(tmp_path)}) as fleet:
        asked = call("judge", inputs={"question": "?"})
        (texts, live), plain = await streamed(fleet, asked), await only(fleet, asked)
    assert (texts, [getattr(reply, "value", {}).get("label") for reply in (live, plain)]) == ([], ["yes", "yes"])
    assert server.visits[0].body == server.visits[1].body


async def test_run_streams_raw_text_but_not_ensembles(
    tmp_path: Path,
) -> None:
    for name, output in (("first", "{best: str, why: str}"), ("second", "str"), ("third", "str")):
        (tmp_path / "agents" / name).mkdir(parents=True)
        (tmp_path / "agents" / name / "agent.yaml").write_text(
            f"{{name: {name}, input: {{text: str}}, output: {output}}}"
        )
        (tmp_path / "agents" / name / "prompt.md").write_text("{{ text }}")
    (tmp_path / "agents" / "both").mkdir()
    both = "{name: both, kind: ensemble, members: [second, third], input: {text: str}, output: str}"
    (tmp_path / "agents" / "both" / "agent.yaml").write_text(both)
    async with SimulatedServer(
        "m", answer=lambda request: SAYS["first" if request.body.get("structured_outputs") else "second"]
    ) as server:
        described = f"{{endpoint: {server.url}/v1, model: m, dialect: vllm, label: restricted}}"
        (tmp_path / "fleet.yaml").write_text(
            f"schema: orchestra/fleet/v1\nname: one\nservers: {{s: {described}}}\nmodels: {{base: s}}\n"
        )
        settings = Settings.load({"fleet": "fleet.yaml", "journal": "off", "agents": "agents"}, start=tmp_path)
        async with Orchestra.open(settings, fleet="none") as orchestra:
            texts = {}
            for name in ("first", "both"):
                run = await orchestra.options(live=True).start(orchestra.find(name), text="which?")
                texts[name] = "".join([piece.text async for piece in run.text()])
                assert (await run).status == "done"
    assert texts == {"first": SAYS["first"], "both": ""}
