"""A project with one agent and simulated workers, for `build_app(opener)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from orchestra.app.orchestra import Orchestra
from orchestra.cli.context import FleetMode
from orchestra.core.settings import Settings
from orchestra.fleet.progress import Progress
from orchestra.testing import SimulatedWorkers
from tests.cli.shell import Shell

AGENT = """\
schema: orchestra/v1
name: answerer
description: Answers from a text.
input: {question: str, context: str}
output: {answer: str | null, quote: Quote | null}
evidence: context
"""
PROMPT = "{{ context }}\n\n{{ question }}\n"
ASK = """\
schema: orchestra/v1
name: ask
input: {question: str, text: str}
output: ${reading}
nodes:
  reading:
    agent: answerer
    with: {question: "${input.question}", context: "${input.text}"}
    checks: [quote]
    against: ${input.text}
    otherwise: [retry, abstain]
    retry: {attempts: 2, wait: [0, 0]}
"""
FLEET = """\
schema: orchestra/fleet/v1
name: nowhere
servers: {it: {endpoint: "http://127.0.0.1:9/v1", model: m, max_model_len: 1000}}
models: {base: it}
"""
GOOD = {"answer": "1889", "quote": "in 1889"}
BAD = {"answer": "1890", "quote": "in 1890"}
TEXT = "It was opened in 1889."


class Simulated:
    """An opener with simulated workers; `workers` are those of the last opening."""

    def __init__(self, script: Any, **options: Any) -> None:
        self.script, self.options = script, options
        self.opened: list[Settings] = []
        self.workers: SimulatedWorkers | None = None

    def __call__(
        self, config: Settings, *, fleet: FleetMode = "start", progress: Callable[[Progress], None] | None = None
    ) -> AbstractAsyncContextManager[Orchestra]:
        self.opened.append(config)
        self.workers = SimulatedWorkers(self.script, **self.options)
        return Orchestra.open(config, fleet=fleet, workers=self.workers, progress=progress)


FILES = {
    "agents/answerer/agent.yaml": AGENT,
    "agents/answerer/prompt.md": PROMPT,
    "workflows/ask.yaml": ASK,
    "configs/nowhere.yaml": FLEET,
    "orchestra.toml": 'fleet = "nowhere"\n',
}


def furnish(project: Path = Path(), files: Mapping[str, str] = FILES) -> None:
    """Writes the files of a project."""
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)


def calls(shell: Shell) -> list[str]:
    """The agents called by the last command."""
    assert isinstance(shell.opener, Simulated)
    assert shell.opener.workers is not None
    return [call.name for call in shell.opener.workers.calls]
