"""Evaluates the answers to the requests of an office: `make evaluate-requests`.

    python -m bench.requests --split dev
    python -m bench.requests --worlds dental brewery --limit 20 --fleet local
    python -m bench.requests --system rag --endpoint http://127.0.0.1:8000/v1 --model NAME

Writes one line of JSON for each request, and a table in Markdown. The splits `test`, `control`, `holdout` and
`second` are for final measurements only: do not look at their requests or answers while the product is being changed.
`bench/requests/README.md` has the rules.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

from bench.machine import code, folder, now
from bench.requests.baselines import Model, Rag, React, Stuffed
from bench.requests.report import Row, write_report
from bench.requests.scoring import score
from bench.requests.systems import Answer, System, cpu_seconds, open_orchestra_system
from bench.requests.worlds import KINDS, SPLITS, Request, World, read_worlds
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions

SYSTEMS = ("orchestra", "rag", "stuffed", "react")
TIMEOUT = 300.0


def choose_requests(
    worlds: Sequence[World], kinds: Sequence[str] = (), limit: int = 0, ids: Sequence[str] = ()
) -> list[tuple[World, Request]]:
    """Returns the requests of these worlds and kinds. With a limit they are spread evenly over all of them."""
    chosen = [
        (world, request)
        for world in worlds
        for request in world.requests
        if (not kinds or request.kind in kinds) and (not ids or request.id in ids)
    ]
    if not limit or limit >= len(chosen):
        return chosen
    return [chosen[index * len(chosen) // limit] for index in range(limit)]


async def evaluate(
    system: System, chosen: Sequence[tuple[World, Request]], out: TextIO | None = None, timeout: float = TIMEOUT
) -> list[Row]:
    """Answers the requests one after the other. Each line of `out` is written at once."""
    rows = []
    for world, request in chosen:
        began, used = time.monotonic(), cpu_seconds()
        try:
            answer = await asyncio.wait_for(system.answer(world, request), timeout)
        except TimeoutError:
            answer = Answer("failed", "", f"no answer after {timeout:g} s")
        row = Row(
            request,
            answer,
            score(request, answer.status, answer.text),
            time.monotonic() - began,
            max(0.0, cpu_seconds() - used),
        )
        rows.append(row)
        if out is not None:
            out.write(json.dumps(row.as_data(), ensure_ascii=False) + "\n")
            out.flush()
    return rows


@asynccontextmanager
async def open_system(given: argparse.Namespace) -> AsyncIterator[System]:
    """Opens the system of the command line."""
    if given.system == "orchestra":
        async with open_orchestra_system(
            Orchestra.open(given.fleet), PlanOptions(router=given.router, cache=False)
        ) as system:
            yield system
    else:
        model = Model(given.endpoint, given.model, os.environ.get("OPENAI_API_KEY", ""))
        yield {"rag": Rag, "stuffed": Stuffed, "react": React}[given.system](model)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.requests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--worlds", nargs="+", default=(), metavar="NAME")
    parser.add_argument("--kinds", nargs="+", default=(), choices=KINDS)
    parser.add_argument("--ids", nargs="+", default=(), metavar="ID", help="only these requests")
    parser.add_argument("--limit", type=int, default=0, help="so many requests, spread evenly")
    parser.add_argument("--system", choices=SYSTEMS, default="orchestra")
    parser.add_argument("--fleet", help="the fleet of Orchestra: a name in configs/, or a path")
    parser.add_argument("--router", default="router", help="the agent that plans")
    parser.add_argument("--endpoint", help="the model server of a comparison, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="its model")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for a request")
    parser.add_argument("--out", type=Path, help="the folder of the results; default: the cache of benchmarks")
    given = parser.parse_args(arguments)
    if given.system != "orchestra" and not (given.endpoint and given.model):
        parser.error(f"--system {given.system} needs --endpoint and --model")
    return given


def lines_path(given: argparse.Namespace) -> Path:
    """Returns the path of the lines; its folder is created if missing."""
    target: Path = given.out or folder() / "requests"
    target.mkdir(parents=True, exist_ok=True)
    return target / f"{given.split}_{given.system}.jsonl"


async def run(given: argparse.Namespace) -> tuple[Path, str]:
    """Evaluates, and returns the path of the lines and the table."""
    chosen = choose_requests(read_worlds(given.split, given.worlds), given.kinds, given.limit, given.ids)
    lines = lines_path(given)
    with lines.open("w", encoding="utf-8") as out:
        async with open_system(given) as system:
            rows = await evaluate(system, chosen, out, given.timeout)
    with_model = given.model or given.fleet or "the configured fleet"
    title = f"Requests of an office: {given.split}, {given.system}, {with_model}"
    table = write_report(rows, title, f"{now()}; {code()}")
    lines.with_suffix(".md").write_text(table, "utf-8")
    return lines, table


def main() -> None:
    """Evaluates, prints the table, and names the files."""
    lines, table = asyncio.run(run(parse_arguments()))
    print(table)
    print(f"{lines} and {lines.with_suffix('.md').name} written")


if __name__ == "__main__":
    main()
