"""Golden journals: runs of the current version of the events, written once, then resumed and replayed by every later
change.

    python -m tests.golden.stage        writes those of this version that are missing

Each is a file of JSON lines: the run's events, then its blobs in base64. Do not change a file: a change of Orchestra
that cannot read them breaks the users' runs, and needs a new `VERSION` of the events. `events-1` has one run of version
1, which is refused.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from orchestra.app.orchestra import Orchestra
from orchestra.core.events import VERSION, Event, RunStarted, decode, encode
from orchestra.core.protocols import InboxMessage
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing import Faults, SimulatedWorkers

HERE = Path(__file__).parent
FOLDER = HERE / f"events-{VERSION}"
CARD = "name: %s\ndescription: Writes.\ninput: {text: str}\noutput: str\n"
MODULE = '''
from orchestra import tool

@tool(effect="pure")
def golden_cut(text: str) -> list[str]:
    """Cuts."""
    return text.split()

@tool(effect="once")
def golden_send(text: str) -> str:
    """Sends."""
    return text

@tool(effect="transactional")
def golden_note(text: str) -> str:
    """Notes."""
    return text

@tool(effect="keyed")
def golden_pay(text: str, *, idempotency_key: str = "") -> str:
    """Pays."""
    return text
'''
EVERYTHING = """
schema: orchestra/v1
name: golden
budget: {tokens: 100000, calls: 100, seconds: 3600}
input: {text: str, mood: {type: str, default: plain}}
output: {joined: "${joined}", grown: "${grown}", chosen: "${chosen}", sure: "${sure}", sent: "${sent}", notes: "${note} ${pay} ${called}"}
nodes:
  words: {tool: golden_cut, with: {text: "${input.text}"}}
  loud:
    agent: golden_writer
    each: ${words}
    as: word
    concurrency: 2
    with: {text: "${word}"}
    retry: {attempts: 3, wait: [0.01, 0.02]}
  grown:
    loop:
      nodes: {next: {agent: golden_writer, with: {text: "${string(turn)}"}}}
      output: ${next}
      until: ${turn >= 3}
      at_most: 5
  maybe: {agent: golden_writer, when: "${size(words) > 100}", with: {text: never}}
  chosen: {first_of: ["${maybe}", "${words[0]}"]}
  joined:
    agent: golden_writer
    with: {text: "${words[0]} and ${string(size(loud.values))}"}
    checks: [schema]
    otherwise: [retry, abstain]
  called: {call: golden_inner, with: {text: "${joined}"}}
  sure: {ask: "Send ${joined}?", options: ["yes", "no"]}
  note: {tool: golden_note, with: {text: "${joined}"}}
  pay: {tool: golden_pay, with: {text: "${joined}"}}
  sent: {tool: golden_send, when: "${sure == 'yes'}", with: {text: "${joined}"}}
"""  # noqa: E501
INNER = """
schema: orchestra/v1
name: golden_inner
input: {text: str}
output: ${it}
nodes:
  it: {agent: golden_writer, with: {text: "(${input.text})"}}
"""
INPUTS = {"text": "a b c"}
ANSWERS: dict[str, Any] = {
    "golden_cut": lambda call: call.inputs["text"].split(),
    "golden_writer": lambda call: f"<{call.inputs['text']}>",
    "golden_send": lambda call: f"sent {call.inputs['text']}",
    "golden_note": lambda call: f"noted {call.inputs['text']}",
    "golden_pay": lambda call: f"paid {call.inputs['text']}",
}
OUTPUT = {
    "joined": "<a and 3>",
    "grown": "<3>",
    "chosen": "a",
    "sure": "yes",
    "sent": "sent <a and 3>",
    "notes": "noted <a and 3> paid <a and 3> <(<a and 3>)>",
}


def project(folder: Path) -> Settings:
    """Writes the project of the golden runs into a folder."""
    agent = folder / "agents" / "golden_writer"
    agent.mkdir(parents=True)
    (agent / "agent.yaml").write_text(CARD % "golden_writer")
    (agent / "prompt.md").write_text("Write: {{ text }}\n")
    (folder / "workflows").mkdir()
    (folder / "workflows" / "golden.yaml").write_text(EVERYTHING)
    (folder / "workflows" / "golden_inner.yaml").write_text(INNER)
    (folder / "golden_tools.py").write_text(MODULE)
    (folder / "orchestra.toml").write_text('modules = ["golden_tools"]\n')
    return Settings.load({"journal": "off"}, start=folder)


def workers(**simulation: Any) -> SimulatedWorkers:
    return SimulatedWorkers(ANSWERS, **simulation)


async def played(settings: Settings) -> tuple[list[Event], MemoryStore]:
    """Executes one complete run, with refused calls, a question and its answer."""
    journal = MemoryJournal()
    faulty = workers(faults=Faults(refused=0.4, attempts=1), seed=3)
    async with Orchestra.open(settings, workers=faulty, journal=journal) as orchestra:
        run = await orchestra.start(orchestra.find("golden"), **INPUTS)
        if await run.wait_until_blocked() is None:
            (asked,) = run.questions
            await journal.send(
                run.id,
                InboxMessage(
                    kind="answer", node="sure", value="perhaps", question_digest=asked.question_digest, by="ann"
                ),
            )
            await journal.send(
                run.id,
                InboxMessage(kind="answer", node="sure", value="yes", question_digest=asked.question_digest, by="ann"),
            )
        assert (await run).value == OUTPUT
        return await journal.read(run.id), journal.store


def dumped(events: Iterable[Event], blobs: dict[str, bytes]) -> str:
    lines = [encode(event).decode() for event in events]
    lines += [
        json.dumps({"blob": name, "data": base64.b64encode(data).decode()}) for name, data in sorted(blobs.items())
    ]
    return "\n".join(lines) + "\n"


def loaded(path: Path) -> tuple[list[Event], list[bytes]]:
    """Returns the events and blobs of a golden file."""
    events: list[Event] = []
    blobs: list[bytes] = []
    for line in path.read_bytes().splitlines():
        if line.startswith(b'{"blob"'):
            blobs.append(base64.b64decode(msgspec.json.decode(line)["data"]))
        else:
            events.append(decode(line))
    return events, blobs


def write(settings: Settings) -> None:
    """Writes the golden files of this version: a complete run, and the same cut off at every fifth event."""
    events, store = asyncio.run(played(settings))
    assert isinstance(events[0], RunStarted)
    FOLDER.mkdir()
    for end in [*range(1, len(events), 5), len(events)]:
        name = "whole" if end == len(events) else f"cut-{end:03}"
        (FOLDER / f"{name}.jsonl").write_text(dumped(events[:end], store.blobs))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        write(project(Path(folder)))
    print(f"{len(list(FOLDER.iterdir()))} files in {FOLDER.name}")
