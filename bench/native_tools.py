"""Calls of an agent with tools in three forms, on the Berkeley Function Calling Leaderboard.

    python -m bench.native_tools --endpoint http://127.0.0.1:8000/v1 --data FOLDER --rows 100

`FOLDER` has `bfcl/dev.jsonl` (https://github.com/ShishirPatil/gorilla, Apache-2.0). The rows are those that expect one
call or none. Each row is one question for the next line of an agent whose tools are the functions of the row:

- `native`: the request has the functions as `tools`, and the model answers in the form of its server;
- `grammar`: the model writes a line under the grammar of the valid lines, which needs vLLM with guidance;
- `text`: the model writes a line without a grammar, as on a server that refuses `tools`.

A rejected line is asked again with the reason, at most `--repairs` times, as the engine does. A call is correct by the
AST check of BFCL (`orchestra.learn.evaluation.benchmark_metrics`); `return` is correct if no call is expected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.agents.function_calls import parameter_schemas
from orchestra.core.errors import FleetError, InputError
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet
from orchestra.learn.evaluation.benchmark_metrics import calls_match
from orchestra.router import tool_turns
from orchestra.router.capabilities import Capabilities
from orchestra.router.plan_syntax import PlanLiteral, PlanStep
from orchestra.router.validation import Rejection
from orchestra.schema.types import Schema

Form: TypeAlias = Literal["native", "grammar", "text"]
FORMS: tuple[Form, ...] = get_args(Form)
STRING: Schema = {"type": "string"}
INPUTS: Schema = {
    "type": "object",
    "properties": {"question": STRING},
    "required": ["question"],
    "additionalProperties": False,
}
PROMPT = "<!-- system -->\nCall a function only if it serves the request.\n<!-- user -->\n{{ question }}\n"
AT_ONCE = 4
MAX_SHOWN = 2_000
"""Characters of a result that a prompt shows. There are no results here."""


@dataclass(frozen=True)
class Row:
    """A row of BFCL, and what its functions allow."""

    question: str
    offer: Capabilities
    calls: list[Any]
    """The accepted calls: one, or none."""


@dataclass(frozen=True)
class RowResult:
    """The last line of a row."""

    is_correct: bool
    rejections: int
    is_valid: bool
    """Whether the last line was accepted."""


def read_rows(path: Path, count: int) -> list[Row]:
    """Returns the first rows that expect at most one call."""
    lines = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return list(islice(_usable_rows(lines), count))


def _usable_rows(lines: Iterable[Any]) -> Iterable[Row]:
    for line in lines:
        functions, calls = line["input"]["functions"], line["expected"]["calls"]
        if len(calls) > 1:
            continue
        try:
            schemas = parameter_schemas(functions, "functions")
        except InputError:  # two functions of one name
            continue
        tools = [
            Contract(str(one["name"]), "tool", schema, {}, str(one.get("description", "")), "pure")
            for one, schema in zip(functions, schemas, strict=True)
        ]
        yield Row(line["input"]["question"], Capabilities.of(tools, {"question": STRING}), calls)


def is_correct(line: PlanStep | None, row: Row) -> bool:
    """Returns whether a line is the expected call, or `return` if none is expected."""
    if line is None or line.each is not None:
        return line is None and not row.calls
    arguments = {
        name: value.value if isinstance(value, PlanLiteral) else row.question for name, value in line.arguments.items()
    }
    return calls_match(row.calls, [{"name": line.capability, "arguments": arguments}])


def build_fleet(endpoint: str, model: str, form: Form) -> FleetConfig:
    """Returns the fleet of one server, which is asked in this form."""
    server = {"endpoint": endpoint, "model": model, "dialect": "auto", "external": False, "label": "restricted"}
    if form == "grammar":
        server |= {"dialect": "vllm", "structured_outputs": "guidance"}
    config = {"schema": "orchestra/fleet/v1", "name": form, "servers": {"it": server}, "models": {"base": "it"}}
    return FleetConfig.model_validate(config, strict=False)


async def run_row(fleet: Fleet, card: Card, row: Row, form: Form, repairs: int) -> RowResult:
    """Asks for a line until one is accepted."""
    rejected: tuple[Rejection, ...] = ()
    while True:
        inputs = {
            "question": row.question,
            **tool_turns.build_prompt(row.offer, (), (), rejected, MAX_SHOWN),
            **tool_turns.build_grammar(row.offer, ()),
            **(tool_turns.encode_functions(row.offer, ()) if form == "native" else {}),
        }
        asked = {"run": "bench", "node": "n", "attempt": 1, "kind": "agent", "name": card.name, "version": card.digest}
        result = await fleet.call(CallRequest(**asked, inputs=inputs))  # type: ignore[arg-type]
        if isinstance(result, CallError) and not result.code.startswith("M"):
            raise FleetError(result.code, result.reason, hint=result.hint)
        text = result.value if isinstance(result, CallResult) else ""
        line = tool_turns.parse_next_line(str(text), row.offer, ())
        if not isinstance(line, tuple):
            return RowResult(is_correct(line, row), len(rejected), is_valid=True)
        if len(rejected) >= repairs:
            return RowResult(is_correct=False, rejections=len(rejected) + 1, is_valid=False)
        rejected = (*rejected, line[0])


async def run_form(form: Form, rows: Sequence[Row], options: argparse.Namespace) -> tuple[list[RowResult], float]:
    """Returns the results of all rows in one form, and the seconds."""
    agent = Card.declare("bfcl", input=INPUTS, output=STRING, prompt=PROMPT, tools=("any",))
    assert agent.tool_use_cards is not None
    line = agent.tool_use_cards[0]
    limit = asyncio.Semaphore(AT_ONCE)
    config = build_fleet(options.endpoint, options.model, form)
    async with Fleet.open(config, cards={"bfcl": agent}, cards_by_digest={line.digest: line}, mode="none") as fleet:

        async def limited(row: Row) -> RowResult:
            async with limit:
                return await run_row(fleet, line, row, form, options.repairs)

        began = time.monotonic()
        return list(await asyncio.gather(*map(limited, rows))), time.monotonic() - began


def summarize(form: Form, rows: Sequence[Row], results: Sequence[RowResult], seconds: float) -> str:
    """Formats the results of a form."""
    calls = [result.is_correct for row, result in zip(rows, results, strict=True) if row.calls]
    none = [result.is_correct for row, result in zip(rows, results, strict=True) if not row.calls]
    rejected, failed = sum(one.rejections > 0 for one in results), sum(not one.is_valid for one in results)
    return (
        f"{form:8} correct {sum(calls)}/{len(calls)} calls, {sum(none)}/{len(none)} without a call;"
        f" first line rejected {rejected}/{len(rows)}, none accepted {failed}/{len(rows)}; {seconds:.0f} s"
    )


async def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", required=True, help="the address of the server, up to /v1")
    parser.add_argument("--model", default="auto", help="the model name; by default the only one that it lists")
    parser.add_argument("--data", type=Path, required=True, help="the folder with bfcl/dev.jsonl")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--repairs", type=int, default=2)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["native", "text"])
    options = parser.parse_args()
    rows = read_rows(options.data / "bfcl" / "dev.jsonl", options.rows)
    for form in options.forms:
        results, seconds = await run_form(form, rows, options)
        print(summarize(form, rows, results, seconds), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
