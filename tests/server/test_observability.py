"""Metrics of a server, and the trace of its callers."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.server.servers import INPUTS, serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_metrics_count_the_runs_of_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.client.post("/api/runs", json={"workflow": "answer", "inputs": INPUTS})
        reply = await server.client.get("/metrics")
    assert reply.status_code == 200
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    started = {sample.labels["workflow"]: sample.value for sample in families["orchestra_runs_started"].samples}
    assert started["answer"] == 1


async def test_trace_of_the_caller_is_recorded_with_the_run(tmp_path: Path) -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    async with serving(tmp_path) as server:
        body = {"workflow": "answer", "inputs": INPUTS}
        run = (await server.client.post("/api/runs", json=body, headers=headers)).json()["id"]
        other = (await server.client.post("/api/runs", json=body)).json()["id"]
        traces = []
        for name in (run, other):
            events = await server.client.get(f"/api/runs/{name}/events", headers={"accept": "application/json"})
            traces.append(events.json()["items"][0].get("options", {}).get("trace", ""))
    assert TRACE in traces[0]
    assert TRACE not in traces[1]
