"""The training data set of the agent `tool_planner`, from the training splits of UltraTool, Seal-Tools and WorfBench.

    python -m agents.tool_planner.data.build --data FOLDER --out FOLDER [--again SEED]

`FOLDER` has the folders ultratool (Huang et al. 2024, in the form of Wu et al. 2024,
`github.com/WxxShirley/GNN4TaskPlan`, MIT), sealtools (Wu et al. 2024, `github.com/fairyshine/Seal-Tools`, Apache-2.0)
and worfbench (Qiao et al. 2024, `github.com/zjunlp/WorfBench`, MIT); only their training splits are read. A graph
becomes lines (`orchestra.router.tool_plans`). The tools are listed as in the workflow `planner`, and tools of the graph
that its shortlist leaves out are inserted. For a further pass over the same rows `--again` offers slightly fewer tools
in a slightly different order, because a model memorises a list that it has seen.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.data_sets import command_line, write
from orchestra.agents.card import Card
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, DatasetSource, SplitShares, split
from orchestra.router.tool_plans import (
    MAX_STEPS,
    RequestTool,
    describe_tools,
    format_graph,
    parse_graph,
    parse_tools,
    shortlist,
)
from orchestra.schema.strict_json import digest

ROOT = Path(__file__).resolve().parents[3]
SHARES = SplitShares(tune=0.04, test=0.0)
SEED = 5
LONGEST = 900
"""Maximal number of characters of a plan."""
LEFT_OUT = 0.2
"""Share of unneeded tools that is left out of a repeated list."""
MOVED = 5
"""Maximal number of places by which a tool moves back in it."""
LICENCES = {"ultratool": "MIT", "sealtools": "Apache-2.0", "worfbench": "MIT"}


def catalogue(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Returns the tools of a set by name, if they are in a separate file."""
    path = folder / "tools.json"
    return {tool["name"]: tool for tool in json.loads(path.read_text("utf-8"))["tools"]} if path.exists() else {}


def given(item: Mapping[str, Any], tools: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Returns the tools of an item in the form of the workflow `planner`."""
    return [tools.get(one, one) if isinstance(one, str) else one for one in item["input"]["tools"]]


def wired(nodes: Sequence[Mapping[str, Any]], tools: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns nodes with arguments of the declared types and references to earlier nodes in our form.

    In Seal-Tools all values are texts, and `API_call_2` is an output of the node that lists it.
    """
    makers = {name: at for at, node in enumerate(nodes) for name in node.get("outputs", ())}

    def value(one: Any, kind: str) -> Any:
        found = makers.get(one) if isinstance(one, str) else None
        if found is not None:
            return f"${{s{found + 1}}}"
        number = kind in ("int", "float") and isinstance(one, str) and re.fullmatch(r"-?\d+(\.\d+)?", one)
        return int(float(one)) if number and kind == "int" else float(one) if number else one

    made = []
    for node in nodes:
        kinds = tools.get(str(node.get("tool")), {}).get("parameters", {})
        given = {
            name: value(one, kinds.get(name, {}).get("type", "")) for name, one in node.get("arguments", {}).items()
        }
        made.append(
            {**node, **({"arguments": {name: given[name] for name in kinds if name in given}} if given else {})}
        )
    return made


def row(
    item: Mapping[str, Any],
    tools_of_set: Mapping[str, Mapping[str, Any]],
    chance: random.Random,
    *,
    again: bool = False,
) -> DatasetRow | None:
    """Returns an item as a row; None for a graph that has no notation. `again`: with its tools `disturbed`."""
    task, nodes = item["input"]["task"], wired(item["expected"]["nodes"], tools_of_set)
    edges = sorted({(i, j) for i, j in item["expected"]["edges"]})
    if not nodes or len(nodes) > MAX_STEPS or any(i >= j for i, j in edges):
        return None
    tools = parse_tools(given(item, tools_of_set))
    text = format_graph(nodes, edges, tools)
    needed = [str(node.get("tool", "")) for node in nodes]
    chosen = among(shortlist(task, tools), tools, needed, chance)
    if again:
        chosen = disturbed(chosen, needed, chance)
    try:
        same = parse_graph(text, chosen)
    except ValueError:
        return None
    if len(text) > LONGEST or [tuple(edge) for edge in sorted(map(tuple, same["edges"]))] != edges:
        return None
    inputs = {"task": task, "tools": describe_tools(task, chosen, item["input"].get("schema")), "grammar": ""}
    group = digest(" ".join(re.findall(r"\w+", task.lower())).encode())[:16]
    return DatasetRow(item["id"], inputs, text, group)


def among(
    chosen: list[RequestTool], tools: Sequence[RequestTool], needed: Sequence[str], chance: random.Random
) -> list[RequestTool]:
    """Returns a shortlist with the tools of a plan."""
    for one in tools:
        if one.name in needed and one not in chosen:
            chosen.insert(chance.randrange(len(chosen) + 1), one)
    return chosen


def disturbed(chosen: Sequence[RequestTool], needed: Sequence[str], chance: random.Random) -> list[RequestTool]:
    """Returns a shortlist in slightly different order and without some unneeded tools."""
    kept = [one for one in chosen if one.name in needed or chance.random() >= LEFT_OUT]
    places = {one.name: at + chance.uniform(0, MOVED) for at, one in enumerate(kept)}
    return sorted(kept, key=lambda one: places[one.name])


def rows(folder: Path, again: int | None = None) -> Iterator[DatasetRow | None]:
    """Returns the rows of one set."""
    chance = random.Random(SEED if again is None else again)  # not used for security
    tools = catalogue(folder)
    for line in (folder / "train.jsonl").read_text("utf-8").splitlines():
        item = json.loads(line)
        yield row(item, tools, chance, again=again is not None)


def made(folder: Path, again: int | None = None) -> Dataset:
    """Builds the data set. `again`: a seed; the tools of the training rows are `disturbed`."""
    card = Card.load(ROOT / "agents" / "tool_planner")
    found: list[DatasetRow] = []
    seen: list[DatasetRow] = []
    origins = []
    for name, licence in LICENCES.items():
        every = list(rows(folder / name))
        kept = [one for one in every if one is not None]
        print(f"{name}: {len(kept)} rows, {len(every) - len(kept)} left out")
        found += kept
        if again is not None:
            seen += [one for one in rows(folder / name, again) if one is not None]
        origins.append(
            DatasetSource(
                name, licence, digest((folder / name / "train.jsonl").read_bytes()), "graphs as lines", len(kept)
            )
        )
    parts = split(found, SHARES)
    if again is not None:  # held-out rows are unchanged
        parts["train"] = split(seen, SHARES)["train"]
    return Dataset.build("tool plans", card.name, contract_digest(card), "MIT; Apache-2.0", origins, parts)


def main() -> None:
    """Writes the folder."""
    parser = command_line(__doc__, f"the folder with {', '.join(LICENCES)}")
    parser.add_argument("--again", type=int, help="a seed: the same rows with slightly reordered and fewer tools")
    options = parser.parse_args()
    write(made(options.data, options.again), options.out)


if __name__ == "__main__":
    main()
