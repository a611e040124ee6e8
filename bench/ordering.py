"""Programs per second on one real server: requests in our order, compared with the order of arrival.

    python -m bench.ordering [--runs 32] [--documents 32] [--questions 3] [--characters 9000] [--rounds 3]

Each run reads one long document: a few concurrent questions, one call that joins the answers, and a last one that
compares the join with the document. All runs start together in random order. Both arms use the same server, one after
the other, alternating; every prompt begins with words that are unique to the arm and the round, so no cache is shared.
A round takes about six minutes on two cores. Rounds are stored, and the table has all rounds with the same code. Needs
the local fleet, which it starts or adopts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from bench import signing
from bench.machine import ROOT, code, folder, now
from orchestra import Orchestra
from orchestra.core.settings import Settings
from orchestra.fleet import vllm_metrics
from orchestra.fleet.vllm_metrics import ServerLoad
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.reader import read

AGENTS = {
    "reader": (
        "Answers a question from a document.",
        "{document: str, question: str}",
        40,
        "Document:\n{{ document }}\n\nAnswer in one sentence: {{ question }}",
    ),
    "writer": (
        "Joins answers to one text.",
        '{answers: "list[str]"}',
        40,
        "Join these answers to one short text:\n{% for answer in answers %}- {{ answer }}\n{% endfor %}",
    ),
    "checker": (
        "Holds a text against a document.",
        "{document: str, draft: str}",
        8,
        "Document:\n{{ document }}\n\nDoes the document say this? Answer yes or no.\n{{ draft }}",
    ),
}
WORKFLOW = """
schema: orchestra/v1
name: report
input: {document: str, questions: "list[str]"}
output: ${check}
nodes:
  answers: {agent: reader, each: "${input.questions}", as: question,
            with: {document: "${input.document}", question: "${question}"}}
  draft: {agent: writer, with: {answers: "${answers.values}"}}
  check: {agent: checker, with: {document: "${input.document}", draft: "${draft}"}}
"""
ARMS = ("fifo", "programs")
SHAPE = {"runs": 32, "documents": 32, "questions": 3, "characters": 9000}
CODE = ("order.py", "prefixes.py", "limits.py")


@dataclass(frozen=True)
class Figures:
    """The results of one arm in one round."""

    seconds: float
    latencies: list[float]
    prompt: int
    output: int
    hits: int
    processor: float
    """Processor seconds of the server."""

    @property
    def row(self) -> tuple[float, ...]:
        """Returns programs per minute, tokens per second, p50, p95, and the share of cached prompt tokens."""
        ordered = sorted(self.latencies)
        p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        tokens = (self.prompt + self.output) / self.seconds
        return (
            60 * len(ordered) / self.seconds,
            tokens,
            statistics.median(ordered),
            p95,
            self.hits / max(1, self.prompt),
        )


def project(place: Path, session: str, order: str) -> Settings:
    """Writes a project whose prompts begin with the session's name, and a fleet with the order."""
    for name, (description, taken, most, prompt) in AGENTS.items():
        agent = place / "agents" / name
        agent.mkdir(parents=True)
        card = (
            f"name: {name}\n"
            f"description: {description}\n"
            f"input: {taken}\n"
            "output: str\n"
            "prompt: prompt.md\n"
            f"max_output: {most}\n"
        )
        (agent / "agent.yaml").write_text(f"{card}system: You are a careful clerk of session {session}.\n")
        (agent / "prompt.md").write_text(prompt)
    laptop = (ROOT / "configs" / "laptop.yaml").read_text()
    (place / "configs").mkdir()
    (place / "configs" / "measured.yaml").write_text(f"{laptop}\norder: {order}\n")
    (place / "orchestra.toml").write_text("")
    return Settings.load({"fleet": "measured", "journal": str(place / "journal.db")}, start=place)


def document(number: int, characters: int) -> str:
    """Returns a long text: sentences of the example documents in a new order."""
    chance = random.Random(number)
    texts = [path.read_text() for path in sorted((ROOT / "examples" / "documents").glob("*.txt"))]
    sentences = [sentence for text in texts for sentence in re.split(r"(?<=[.])\s+", text.strip())]
    found: list[str] = []
    while sum(map(len, found)) < characters:
        found.append(chance.choice(sentences))
    return " ".join(found)


async def arm(order: str, session: str, turn: int, given: argparse.Namespace) -> Figures:
    """Runs one arm of one round; both arms of a round have the same runs in the same order."""
    asked = [
        "What is it about?",
        "Which place is named?",
        "Which year is named?",
        "Who is named?",
        "What happened?",
        "Why?",
    ]
    numbers = [number % given.documents for number in range(given.runs)]
    random.Random(turn).shuffle(numbers)
    documents = {number: document(number, given.characters) for number in set(numbers)}
    with tempfile.TemporaryDirectory() as place:
        settings = project(Path(place), session, order)
        async with Orchestra.open(settings, progress=lambda step: print(step.message, file=sys.stderr)) as orchestra:
            step = Workflow.from_graph(read(WORKFLOW, "report.yaml").graph)
            await (await orchestra.start(step, document="warm up", questions=["What?"]))
            server = (await orchestra.fleet_status()).servers[0]
            address, pid = server.address, server.supervisor_report["pid"]
            headers = await signing.headers(settings)
            before, worked, began = await load(address, headers), processor(pid), time.perf_counter()

            async def one(number: int) -> tuple[float, Any]:
                run = await orchestra.start(step, document=documents[number], questions=asked[: given.questions])
                result = await run
                return time.perf_counter() - began, result

            done = await asyncio.gather(*(one(number) for number in numbers))
            seconds, worked, after = time.perf_counter() - began, processor(pid) - worked, await load(address, headers)
    usages = [result.usage for _, result in done]
    return Figures(
        seconds,
        [latency for latency, _ in done],
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.output_tokens for usage in usages),
        after.prefix_hits - before.prefix_hits,
        worked,
    )


def processor(pid: int) -> float:
    """Returns the processor seconds of a process and its descendants, on Linux."""
    parents, ticks = dict[int, int](), dict[int, int]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(stat.parent.name)], ticks[int(stat.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(member, 0) for member in family) / os.sysconf("SC_CLK_TCK")


async def load(address: str, headers: Mapping[str, str]) -> ServerLoad:
    """Reads the server's `/metrics`."""
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{address}/metrics") as reply:
        return vllm_metrics.parse_metrics(await reply.text())


def table(rows: list[dict[str, Any]]) -> str:
    """Returns medians of both arms over the rounds, and the ratios of rounds: median, minimum and maximum."""
    lines = [
        "| order | programs a minute | tokens/s | p50 s | p95 s | of the prompts in the cache | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for order in ARMS:
        columns = zip(*(row[order] for row in rows), strict=True)
        programs, tokens, p50, p95, cached = (statistics.median(column) for column in columns)
        lines.append(
            f"| {order} | {programs:.1f} | {tokens:.0f} | {p50:.0f} | {p95:.0f} | {cached:.1%} | {len(rows)} |"
        )
    ratios = [[row["programs"][column] / row["fifo"][column] for row in rows] for column in (0, 3)]
    said = [f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})" for found in ratios]
    return "\n".join(
        [*lines, "", f"Over FIFO, the median of the rounds: {said[0]} times the programs, {said[1]} times the p95."]
    )


def kept(shape: dict[str, int]) -> list[dict[str, Any]]:
    """Returns the stored rounds of this shape with the current code."""
    file = folder() / "ordering.jsonl"
    rows = [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []
    return [row for row in rows if (row["shape"], row["line"]) == (shape, line())]


def line() -> str:
    """Returns a digest of the scheduling code."""
    return sha256(b"".join((ROOT / "orchestra" / "fleet" / name).read_bytes() for name in CODE)).hexdigest()[:12]


async def main() -> int:
    """Measures the requested rounds, and prints the table of all rounds with this code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**SHAPE, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    shape = {name: getattr(given, name) for name in SHAPE}
    for _ in range(given.rounds):
        count = len(kept(shape))
        found: dict[str, tuple[float, ...]] = {}
        for order in ARMS if count % 2 else ARMS[::-1]:
            figures = await arm(order, f"{time.time_ns():x}", count, given)
            found[order] = figures.row
            print(
                order,
                [round(value, 3) for value in figures.row],
                f"{figures.processor:.1f} processor s",
                file=sys.stderr,
            )
        with (folder() / "ordering.jsonl").open("a") as file:
            file.write(json.dumps({"shape": shape, "line": line(), **found}) + "\n")
    told = f"{table(kept(shape))}\n\n{', '.join(f'{name} {value}' for name, value in shape.items())}; {now()}; {code()}"
    print(told)
    if shape == SHAPE:
        (folder() / "ordering.txt").write_text(f"{told}\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
