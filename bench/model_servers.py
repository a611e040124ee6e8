"""Model servers on a CPU by base model and data type: tokens per second, memory and accuracy, alone and beside other
programs.

    python -m bench.model_servers [--fleet laptop qwen-0.5b qwen-1.5b] [--types bfloat16 float32 int8]
                                  [--busy 0 1 2 4] [--rounds 1] [--data FILE --rows 60]

For each base model and data type it starts a server (Orchestra's plugin, no adapters) and prints one row for each
number of busy programs. A busy program computes on one core all the time. `fair share` is the part of the machine that
a fair scheduler gives to one of N + 1 programs; the server may lose at most 1.5 times that, so `of fair` is at least
0.67. `--data` has rows {"input": {"question", "context"}, "expected": {"answers": [{"text"}]}}; each is one prompt
without an adapter, and EM and F1 are those of SQuAD. `ONEDNN_MAX_CPU_ISA=AVX2` measures a CPU without bfloat16.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.adapters import SENTENCE, Served, serving
from bench.machine import ROOT, code, now
from bench.metrics import squad_scores
from orchestra.fleet import config
from orchestra.fleet.config import LocalServer
from orchestra.fleet.weights import weights

TYPES = {
    "bfloat16": ("bfloat16", None),
    "float32": ("float32", None),
    "int8": ("float32", "int8"),
    "auto": ("auto", "auto"),
}
BUSY = "import hashlib\nblock = bytes(1 << 16)\nwhile True: hashlib.sha256(block).digest()"
AT_ONCE, TOKENS = (1, 8, 32), 48
PROMPT = (
    "Answer the question with the exact words of the text, as few as possible.\n\nText: {context}\n\n"
    "Question: {question}"
)
HEAD = (
    "| model | type | busy programs | fair share | 1 request | 8 | 32 | of alone | of fair | prompts read | of alone | "
    "of fair | ready | memory | EM | F1 |"
)


@dataclass(frozen=True)
class Speed:
    """Output tokens per second for each number of requests, and prompt tokens per second."""

    written: tuple[float, ...]
    read: float


@contextlib.contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Runs programs that compute all the time, one core each."""
    programs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


async def speed(served: Served, rounds: int) -> Speed:
    """Returns the best rates of the rounds."""
    best = Speed((0.0,) * len(AT_ONCE), 0.0)
    for _ in range(rounds):
        written = [(await served.rate(served.names, count, TOKENS))[1] for count in AT_ONCE]
        read, _ = await served.rate(served.names, 16, 1, SENTENCE * 12)
        best = Speed(tuple(map(max, best.written, written)), max(best.read, read))
    return best


def memory(group: int) -> float:
    """Returns the GiB of a process group: the sum of the proportional set sizes (proc(5), smaps_rollup)."""
    kib = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(folder.name)) == group:
                lines = (folder / "smaps_rollup").read_text("ascii").splitlines()
                kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 2**20


def read_rows(data: Path, count: int) -> list[dict[str, Any]]:
    """Returns the first rows that have an answer."""
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    return [row for row in rows if row["expected"]["answers"]][:count]


async def accuracy(served: Served, rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Returns the exact match and the F1 of SQuAD."""
    limit = asyncio.Semaphore(8)

    async def score(row: dict[str, Any]) -> tuple[float, float]:
        message = {"role": "user", "content": PROMPT.format(**row["input"])}
        body = {"model": served.names[0], "messages": [message], "max_tokens": 32, "temperature": 0}
        async with limit, served.session.post(f"{served.url}/v1/chat/completions", json=body) as reply:
            text = (await reply.json())["choices"][0]["message"]["content"]
        return squad_scores([answer["text"] for answer in row["expected"]["answers"]], text)

    scores = await asyncio.gather(*map(score, rows))
    return sum(exact for exact, _ in scores) / len(scores), sum(f1 for _, f1 in scores) / len(scores)


async def measure(server: LocalServer, kind: str, rows: Sequence[dict[str, Any]], given: argparse.Namespace) -> None:
    """Prints the rows of one server."""
    dtype, quantization = TYPES[kind]
    found = weights.find_weights(server.weights, weights.ModelStore.from_environment())
    if found is None:
        print(f"{server.model}: run `orchestra fleet start` once, for its weights", file=sys.stderr)
        return
    server = server.model_copy(update={"dtype": dtype, "quantization": quantization})
    with tempfile.TemporaryDirectory() as place:
        async with serving(server, found, False, Path(place) / "log") as served:
            await served.rate(served.names, 4, 4)
            alone: Speed | None = None
            for count in given.busy:
                with busy_programs(count):
                    rates = await speed(served, given.rounds)
                alone = alone or rates
                share = 1 / (count + 1)
                written, read = rates.written[-1] / alone.written[-1], rates.read / alone.read
                cells = [server.model, kind, str(count), f"{share:.2f}", *(f"{rate:.0f}" for rate in rates.written)]
                cells += [f"{written:.2f}", f"{written / share:.2f}"]
                cells += [f"{rates.read:.0f}", f"{read:.2f}", f"{read / share:.2f}"]
                if not count:
                    cells += [f"{served.ready_after:.0f} s", f"{memory(served.group):.1f} GiB"]
                    if rows:
                        cells += [f"{value:.2f}" for value in await accuracy(served, rows)]
                print("| " + " | ".join([*cells, *[""] * (16 - len(cells))]) + " |", flush=True)


async def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet", nargs="+", default=["laptop"], help="files in configs/")
    parser.add_argument("--types", nargs="+", choices=sorted(TYPES), default=["auto"])
    parser.add_argument("--busy", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=60)
    given = parser.parse_args()
    rows = read_rows(given.data, given.rows) if given.data else []
    print(f"{now()}, {code()}\n\n{HEAD}\n" + "|---" * 16 + "|", flush=True)
    for name in given.fleet:
        described = config.read_config(ROOT / "configs" / f"{name}.yaml")
        for server in described.local_servers.values():
            for kind in given.types:
                await measure(server, kind, rows, given)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
