"""Promotion on the real fleet: a noise adapter replaces another while requests run, and is rolled back; no request is
lost.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from pathlib import Path

import pytest

from orchestra import Orchestra
from orchestra.cli.learn.arguments import ComparisonSpec
from orchestra.cli.learn.evaluate import run_promotion, run_rollback
from orchestra.core.errors import FleetError
from orchestra.core.events import AttemptFinished
from orchestra.core.settings import Settings
from orchestra.fleet.adapters import adapter_digest
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.weights import weights
from orchestra.fleet.weights.download import file_sha256
from tests.simulation.lab.noise_adapters import write_noise_adapter

pytestmark = pytest.mark.real

SERVER, ROWS = "smol", 4
CARD = """\
schema: orchestra/v1
name: chooser
input: {text: str}
output: {colour: "Literal['red', 'blue', 'green']"}
adapter: adapter
"""


def noise(folder: Path, model: Path, base: str, seed: int) -> Path:
    """A small adapter with the manifest of a trained one."""
    made = write_noise_adapter(folder, model, seed, rank=8, layers=("q_proj",))
    said = {
        "base": base,
        "bases": [weights.quick_digest(model)],
        "sha256": file_sha256(made / "adapter_model.safetensors"),
        "rank": 8,
    }
    (made / "manifest.json").write_text(json.dumps(said))
    return made


async def asked(orchestra: Orchestra, text: str) -> str:
    """Returns the name of the adapter that answered, without the end of its digest. Raises an error if the call
    failed.
    """
    result = await orchestra.run(orchestra.find("chooser"), text=text)
    assert result.status == "done", result
    (attempt,) = [event for event in await orchestra.journal.read(result.run) if isinstance(event, AttemptFinished)]
    return attempt.model


async def test_promotion_and_rollback_lose_no_request(laptop: FleetConfig, tmp_path: Path) -> None:
    model, base = (
        weights.find_weights(laptop.local_servers[SERVER].weights, weights.ModelStore.from_environment()),
        laptop.local_servers[SERVER].model,
    )
    assert model
    folder, seed = tmp_path / "agents" / "chooser", random.randrange(1 << 30)
    folder.mkdir(parents=True)
    (tmp_path / "orchestra.toml").touch()
    (folder / "agent.yaml").write_text(CARD)
    (folder / "prompt.md").write_text("Which colour is it? {{ text }}")
    old = f"adapter-{adapter_digest(noise(folder / 'adapter', model, base, seed))[:12]}"
    candidate = noise(tmp_path / "new" / "adapter", model, base, seed + 1)
    new = f"adapter-{adapter_digest(candidate)[:12]}"
    rows = [{"id": f"r{n}", "input": {"text": f"sky {n}"}, "expected": {"colour": "blue"}} for n in range(ROWS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = Settings.load({"fleet": laptop.name, "journal": str(tmp_path / "journal.db")}, start=tmp_path)
    wanted = ComparisonSpec("chooser", tmp_path / "rows.jsonl", "test", None, candidate, False, None, 0, False)
    answered: list[str] = []
    numbers, done = itertools.count(), asyncio.Event()

    async def requests(orchestra: Orchestra) -> None:
        while not done.is_set():
            answered.append(await asked(orchestra, f"number {next(numbers)}"))

    async with Orchestra.open(chosen, fleet="adopt") as orchestra:
        assert await asked(orchestra, "first") == old
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(requests(orchestra))
            try:
                found = await run_promotion(Orchestra.open, chosen, wanted, force=True)
                assert await asked(orchestra, "then") == new, "a process that has the fleet open asks for the new one"
                line = await run_rollback(Orchestra.open, chosen, "chooser")
                assert await asked(orchestra, "last") == old
            finally:
                done.set()
    assert (found.promoted, [arm.failed for arm, _ in found.report.arms]) == (True, [0] * len(found.report.arms))
    assert line.new_digest.startswith(old.removeprefix("adapter-"))
    assert answered
    assert set(answered) <= {old, new}
    log = [json.loads(text)["verb"] for text in (folder / "promotions.jsonl").read_text().splitlines()]
    assert log == ["promote", "rollback"]


async def test_adapter_of_wrong_shapes_never_answers(laptop: FleetConfig, tmp_path: Path) -> None:
    """vLLM would load it, and answer."""
    model = weights.find_weights(laptop.local_servers[SERVER].weights, weights.ModelStore.from_environment())
    assert model
    folder = tmp_path / "agents" / "chooser"
    (tmp_path / "other").mkdir()
    config = json.loads((model / "config.json").read_bytes())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "hidden_size": 512}))
    (tmp_path / "orchestra.toml").touch()
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(CARD)
    (folder / "prompt.md").write_text("Which colour is it? {{ text }}")
    write_noise_adapter(folder / "adapter", tmp_path / "other", 1, layers=("q_proj",))
    (tmp_path / "rows.jsonl").write_text('{"id": "r", "input": {"text": "sky"}, "expected": {"colour": "blue"}}\n')
    chosen = Settings.load({"fleet": laptop.name, "journal": str(tmp_path / "journal.db")}, start=tmp_path)
    async with Orchestra.open(chosen, fleet="adopt") as orchestra:
        run = await orchestra.start(orchestra.find("chooser"), text="the sky")
        result = await run.wait()
        assert (result.status, "is 512 wide, and the base 576 there" in str(result.outcome)) == ("failed", True), result
    wanted = ComparisonSpec("chooser", tmp_path / "rows.jsonl", "test", None, folder / "adapter", False, None, 0, False)
    with pytest.raises(FleetError) as caught:
        await run_promotion(Orchestra.open, chosen, wanted, force=True)
    assert caught.value.code == "F222"
    assert not (folder / "promotions.jsonl").exists()
