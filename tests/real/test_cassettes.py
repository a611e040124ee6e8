"""Cassettes of the real fleet: recorded once from vLLM, replayed without fleet and weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.fleet.config import FleetConfig

pytestmark = pytest.mark.real

TEST = '''
from orchestra import agent, answered_by_model, workflow
from orchestra.testing import CassetteOrchestra


@agent(prompt="Write one short sentence about {{ topic }}.", max_output=24)
def sentence(topic: str) -> str:
    """Writes a sentence."""
    return answered_by_model()


@workflow()
def two(topic: str) -> dict[str, str]:
    first = sentence(topic=topic)
    second = sentence(topic=first)
    return {"first": first, "second": second}


async def test_sentences_of_the_model(cassette: CassetteOrchestra) -> None:
    result = await cassette.run(two, topic="the sea")
    print("said:", result.value)
    assert result.usage.output_tokens > 0
'''


def said(project: Path, environment: dict[str, str], *flags: str) -> str:
    """Runs the project's test, which must pass, and returns the model's text."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *flags]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(line for line in done.stdout.splitlines() if "said:" in line)


def test_cassette_recorded_from_vllm_is_replayed(laptop: FleetConfig, tmp_path: Path) -> None:
    project, nowhere = tmp_path / "project", tmp_path / "nowhere"
    project.mkdir()
    nowhere.mkdir(mode=0o700)
    (project / "orchestra.toml").write_text(f'fleet = "{laptop.name}"\n')
    (project / "test_sea.py").write_text(TEST)
    recorded = said(project, dict(os.environ), "--record")
    (cassette,) = (project / "cassettes").rglob("*.jsonl")
    assert len(cassette.read_text("utf-8").splitlines()) == 3, "a head, and a line for each call"
    elsewhere = {name: str(nowhere) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")}
    assert said(project, {**os.environ, **elsewhere}) == recorded
    assert not any(nowhere.rglob("*.gguf"))
