"""A project with a simulated HTTP model server; fleet, engine, SQLite journal and command line are the real ones."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.app.orchestra import Orchestra
from orchestra.cli.options import parse_budget
from orchestra.core.events import AttemptFinished, Event, RunFinished
from orchestra.core.labels import Label
from orchestra.core.settings import Settings
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.testing import SimulatedServer
from orchestra.testing.fake_vllm.faults import EndpointFaults, SimulatedRequest
from orchestra.workflows.python.steps import Step

RETRY = "retry: {attempts: 2, wait: [0, 0]}"
HEAD = "schema: orchestra/v1\nname: "
FILES = {
    "agents/judge/agent.yaml": (
        "name: judge\ninput: {text: str}\noutput: {answer: str, count: int | null}\nmax_output: 1048576\n"
    ),
    "agents/judge/prompt.md": "<!-- system -->\nJudge the text.\n<!-- user -->\n<text>\n{{ text }}\n</text>\n",
    "agents/echo/agent.yaml": (
        "name: echo\ninput: {text: str, more: 'dict[str, str] | null'}\noutput: str\nmax_output: 1048576\n"
    ),
    "agents/echo/prompt.md": (
        "<text>{{ text }}</text>\n{% for key in more or [] %}{{ key }}={{ more[key] }}\n{% endfor %}\n"
    ),
    "workflows/judging.yaml": (
        f"{HEAD}judging\ninput: {{text: str, secret: {{type: str, default: S3CRET}}}}\noutput: ${{second}}\nnodes:\n"
        f"  first: {{agent: judge, with: {{text: '${{input.text}}'}}, {RETRY}}}\n"
        f"  second: {{agent: echo, with: {{text: 'It said: ${{first.answer}}', more: '${{null}}'}}, {RETRY}}}\n"
    ),
    "workflows/echoing.yaml": (
        f"{HEAD}echoing\n"
        "input: {text: str, more: {type: 'dict[str, str] | null', default: null}}\n"
        "output: ${said}\n"
        "nodes:\n"
        f"  said: {{agent: echo, with: {{text: '${{input.text}}', more: '${{input.more}}'}}, {RETRY}}}\n"
    ),
    "workflows/tooling.yaml": (
        f"{HEAD}tooling\ninput: {{}}\noutput: ${{told}}\nnodes:\n  told: {{tool: poisoned, with: {{}}, {RETRY}}}\n"
    ),
    "workflows/saving.yaml": (
        f"{HEAD}saving\ninput: {{}}\noutput: ${{told}}\nnodes:\n"
        "  told: {tool: poisoned, with: {}, fallback: saved}\n"
    ),
}
FLEET = """\
schema: orchestra/fleet/v1
name: here
servers: {it: {endpoint: 'URL/v1', model: m, dialect: vllm, label: restricted, revision: '1'}}
models: {base: it}
"""


@dataclass(frozen=True)
class Played:
    """A run: its result, the events and blobs of its journal, and the requests to the server."""

    status: str
    code: str
    output: Any
    events: list[Event]
    blobs: dict[str, bytes]
    requests: list[SimulatedRequest]

    @property
    def attempts(self) -> list[AttemptFinished]:
        """All finished attempts."""
        return [event for event in self.events if isinstance(event, AttemptFinished)]

    def written(self, attempt: AttemptFinished) -> str:
        """Returns the model's text from the exact bytes of its response."""
        return str(json.loads(self.blobs[attempt.received])["choices"][0]["message"]["content"])


def furnish(project: Path) -> None:
    """Writes the project's files."""
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)


@dataclass(frozen=True)
class Setting:
    """Options of a run: the fleet file, faults of the server, the label of the data, and the log level."""

    fleet: str = FLEET
    faults: EndpointFaults = EndpointFaults()  # noqa: RUF009  # frozen
    label: Label = "internal"
    log: str = "off"
    budget: str = ""


def play(
    project: Path,
    workflow: str,
    answer: Any = "",
    *,
    tool: Step[..., Any] | None = None,
    on: Setting = Setting(),
    **inputs: Any,
) -> Played:
    """Runs a workflow to its end. `answer` is the model's text, or a function of the request. A second reader reads the
    journal.
    """
    furnish(project)
    return asyncio.run(_play(project, workflow, answer, tool, on, inputs))


async def _play(
    project: Path, workflow: str, answer: Any, tool: Step[..., Any] | None, on: Setting, inputs: dict[str, Any]
) -> Played:
    says = answer if callable(answer) else lambda request: answer
    async with SimulatedServer("m", answer=says, faults=on.faults) as server:
        (project / "here.yaml").write_text(on.fleet.replace("URL", server.url))
        settings = Settings.load({"fleet": str(project / "here.yaml"), "log": on.log}, start=project)
        async with Orchestra.open(settings, fleet="none") as orchestra:
            if tool is not None:
                orchestra.program(tool)
            limits = parse_budget([on.budget]) if on.budget else None
            run = await orchestra.options(label=on.label, budget=limits).start(orchestra.find(workflow), **inputs)
            result = await run.wait()
        assert isinstance(settings.journal, Path)
        async with SqliteJournal.open(settings.journal) as journal:
            events = await journal.read(run.id)
            names = [
                name
                for event in events
                if isinstance(event, AttemptFinished)
                for name in (event.sent, event.received)
                if name
            ]
            blobs = {name: await journal.get_blob(name) or b"" for name in names}
        requests = [request for request in server.app.requests if request.path == "/v1/chat/completions"]
    ended = events[-1]
    assert isinstance(ended, RunFinished)
    code = result.error.code if result.error is not None else ""
    return Played(ended.status, code, result.value, events, blobs, requests)


def obeyed(text: str) -> set[str]:
    """Returns the characters of a text that control a terminal or are invisible."""
    return {
        char
        for char in text
        if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    }
