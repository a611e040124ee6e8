"""The training data set of the agent `caller`, from the training splits of BFCL and Seal-Tools.

    python -m agents.caller.data.build --data FOLDER --out FOLDER

`FOLDER` has the folders bfcl (Patil, Mao, Yan et al. 2025, `github.com/ShishirPatil/gorilla`, Apache-2.0) and sealtools
(Wu et al. 2024, `github.com/fairyshine/Seal-Tools`, Apache-2.0); only their training splits are read. Of the values
that BFCL accepts for an argument one is used, preferably one that occurs in the question; an optional argument is left
out. Derived rows, by rules:

- a question for one function is asked with functions of other rows;
- a question with several functions is asked without the correct one: no function fits;
- a question is asked with other values, with several values, repeatedly, and after other questions
  (`agents.caller.data.edits`).
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.caller.data.edits import LONGEST, Values, chains, listed, repeated, respectively, retold
from agents.caller.data.items import Function, Item, fits
from bench.data_sets import command_line, write
from orchestra.agents.card import Card
from orchestra.agents.function_calls import narrow_output
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetSource, SplitShares, split
from orchestra.schema.strict_json import digest
from orchestra.schema.types import Validator

ROOT = Path(__file__).resolve().parents[3]
SHARES = SplitShares(tune=0.06, test=0.0)
LICENCE = "Apache-2.0"
AMONG = 0.4
"""Share of questions for one function that are asked with other functions."""
STRANGE = 0.4
"""Share of questions for one function that are also asked with only functions of other rows."""
BESIDE = 0.3
"""Share of edited questions with an additional function."""
EDITS = {retold: 0.7, listed: 0.5, respectively: 0.5, repeated: 0.5}
"""Share of the questions that each edit is tried on."""
TURNS = 3
"""Number of tries of an edit on a question."""
CHAINS = {2: 260, 3: 160, 4: 110}
"""Number of chains by number of questions."""
SEALED = {1: 200, 2: 90, 3: 60, 4: 30}
"""Rows of Seal-Tools by number of calls."""


class NoAnswer(ValueError):
    """A row whose accepted values do not have the declared types."""


def chosen(accepted: Sequence[Any], declared: Mapping[str, Any], question: str, needed: bool) -> Any:
    """Returns one of the values that BFCL accepts for an argument; "" if it is left out. Raises `NoAnswer` if none has
    the declared type.
    """
    if "" in accepted and not needed:
        return ""
    validator = Validator(_type(declared))
    values = [
        value for one in accepted if one != "" and validator.check(value := _plain(one, declared, question)) is None
    ]
    if not values:
        raise NoAnswer
    texts = [str(value) for value in values]
    stands = [text in question for text in texts]
    like = [text.lower() in question.lower() for text in texts]
    return values[stands.index(True) if True in stands else like.index(True) if True in like else 0]


def _type(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON Schema of a parameter, as the agent's outputs are validated."""
    function = {"name": "f", "parameters": {"properties": {"x": declared}}}
    schema = narrow_output(
        {"properties": {"calls": {"type": "array"}}}, {"calls": "functions"}, {"functions": [function]}
    )
    found: dict[str, Any] = schema["properties"]["calls"]["items"]["anyOf"][0]["properties"]["arguments"]["properties"][
        "x"
    ]
    return found


def _plain(value: Any, declared: Mapping[str, Any], question: str) -> Any:
    """Returns a plain value; records have a list of accepted values for each field."""
    if isinstance(value, Mapping):
        inner = declared.get("properties", {})
        needed = declared.get("required", ())
        fields = {
            name: value[name]
            for name in [*(name for name in inner if name in value), *(name for name in value if name not in inner)]
        }
        made = {
            name: chosen(one, inner.get(name, {}), question, name in needed) if isinstance(one, list) else one
            for name, one in fields.items()
        }
        return {name: one for name, one in made.items() if one != "" or name in needed}
    if isinstance(value, list):
        return [_plain(one, declared.get("items", {}), question) for one in value]
    return value


def answered(
    possible: Mapping[str, Mapping[str, Sequence[Any]]], functions: Sequence[Function], question: str
) -> dict[str, Any]:
    """Returns one correct call among those that BFCL accepts."""
    (name, accepted), *_ = possible.items()
    parameters = next(function for function in functions if function["name"] == name)["parameters"]
    made = {}
    for parameter, declared in parameters["properties"].items():
        if parameter in accepted:
            value = chosen(accepted[parameter], declared, question, parameter in parameters.get("required", ()))
            if value != "" or "" not in accepted[parameter]:
                made[parameter] = value
    if set(accepted) - set(parameters["properties"]):
        raise NoAnswer
    return {"name": name, "arguments": made}


def bfcl(path: Path) -> tuple[list[Item], int]:
    """Returns the rows of BFCL with one answer each, and the number of rows left out."""
    found, out = [], 0
    for line in path.read_text("utf-8").splitlines():
        item = json.loads(line)
        question, functions = item["input"]["question"], item["input"]["functions"]
        try:
            calls = tuple(answered(one, functions, question) for one in item["expected"]["calls"])
        except NoAnswer:
            out += 1
            continue
        if (
            len(json.dumps(functions)) + len(question) + len(item["input"].get("system", "")) > LONGEST
            or not question.strip()
        ):
            out += 1
            continue
        found.append(Item(item["id"], question, tuple(functions), calls, item["input"].get("system", "").strip()))
    return found, out


def sealed(folder: Path) -> Iterator[Item]:
    """Returns rows of Seal-Tools whose calls are independent, each with a few additional functions."""
    tools = {tool["name"]: _function(tool) for tool in json.loads((folder / "tools.json").read_text("utf-8"))["tools"]}
    left = dict(SEALED)
    for line in (folder / "train.jsonl").read_text("utf-8").splitlines():
        item = json.loads(line)
        nodes, question = item["expected"]["nodes"], item["input"]["task"]
        functions = [tools[name] for name in dict.fromkeys(node["tool"] for node in nodes)]
        calls = [_typed(node, tools[node["tool"]]) for node in nodes]
        if left.get(len(nodes), 0) <= 0 or "API_call" in json.dumps(calls) or not fits(functions, calls):
            continue
        values = [str(value).lower() for call in calls for value in call["arguments"].values()]
        if not all(value in question.lower() for value in values):
            continue
        left[len(nodes)] -= 1
        chance = random.Random(f"{item['id']} among")
        others = [tools[name] for name in item["input"]["tools"]]
        yield Item(item["id"], question, tuple(functions), tuple(calls)).among(
            chance.sample(others, chance.choice((0, 0, 1, 2))), chance
        )


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"type": "dict", "properties": tool["parameters"], "required": tool["required"]}
    return {"name": tool["name"], "description": tool["description"], "parameters": parameters}


def _typed(node: Mapping[str, Any], function: Function) -> dict[str, Any]:
    """Returns a call of Seal-Tools, whose values are all texts, with numbers where the tool declares them."""
    made = {}
    for name, declared in function["parameters"]["properties"].items():
        if name in node.get("arguments", {}):
            value = node["arguments"][name]
            number = isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value)
            kind = declared.get("type")
            made[name] = (
                int(float(value)) if number and kind == "int" else float(value) if number and kind == "float" else value
            )
    return {"name": node["tool"], "arguments": made}


def among(items: Sequence[Item]) -> list[Item]:
    """Returns the items with functions in random order; many single-function items get functions of others."""
    found = []
    for item in items:
        chance = random.Random(f"{item.id} among")
        alone = len(item.functions) == 1 and item.calls and chance.random() < AMONG
        more = [chance.choice(items).functions[0] for _ in range(chance.choice((1, 1, 2)))] if alone else []
        found.append(item.among(list({function["name"]: function for function in more}.values()), chance))
    return found


def unanswerable(items: Sequence[Item]) -> Iterator[Item]:
    """Returns questions without the functions that answer them."""
    for item in items:
        chance = random.Random(f"{item.id} unanswerable")
        called = {call["name"] for call in item.calls}
        rest = tuple(function for function in item.functions if function["name"] not in called)
        if called and rest:
            yield Item(f"{item.id}-without", item.question, rest, (), item.system)
        elif called and chance.random() < STRANGE:
            strange = chance.choice(items).functions[0]
            if strange["name"] not in called and not _words(strange["name"]) & _words(item.question):
                yield Item(f"{item.id}-strange", item.question, (strange,), (), item.system)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))


def edited(items: Sequence[Item]) -> Iterator[Item]:
    """Returns the edited items, for a share of the items per edit; some get additional functions."""
    values, known = Values(items), {item.question for item in items}
    for edit, share in EDITS.items():
        for item, turn in itertools.product(items, range(TURNS)):
            mark = f"{edit.__name__}{turn}"
            chance = random.Random(f"{item.id} {mark}")
            if (
                item.calls
                and chance.random() < share
                and (made := edit(item, values, mark)) is not None
                and made.question not in known
            ):
                known.add(made.question)
                yield _beside(made, items, chance)
    for made in chains(items, CHAINS):
        yield _beside(made, items, random.Random(made.id))


def _beside(item: Item, items: Sequence[Item], chance: random.Random) -> Item:
    """Returns the item, sometimes with an additional function."""
    return item.among([chance.choice(items).functions[0]] if chance.random() < BESIDE else [], chance)


def made(folder: Path) -> Dataset:
    """Builds the data set."""
    items, out = bfcl(folder / "bfcl" / "train.jsonl")
    parts = split([item.row() for item in items], SHARES)
    held = {row.id for row in parts["tune"]}
    groups = {row.group for row in parts["tune"]}
    kept = [item for item in items if item.id not in held]
    more = [*unanswerable(kept), *edited(kept)]
    others = [item for item in sealed(folder / "sealtools") if item.group not in groups]
    train = {item.id: item.row() for item in (*among(kept), *more, *others)}
    mark = {name: digest((folder / name / "train.jsonl").read_bytes()) for name in ("bfcl", "sealtools")}
    origins = [
        DatasetSource(
            "BFCL, Patil et al. 2025, train part",
            LICENCE,
            mark["bfcl"],
            "one right answer each, some among more functions",
            len(items),
        ),
        DatasetSource(
            "BFCL, Patil et al. 2025, train part",
            LICENCE,
            mark["bfcl"],
            "without functions, with other values, several together",
            len(more),
        ),
        DatasetSource(
            "Seal-Tools, Wu et al. 2024, train part",
            LICENCE,
            mark["sealtools"],
            "independent calls among a few functions",
            len(others),
        ),
    ]
    card = Card.load(ROOT / "agents" / "caller")
    left_out = {"no answer of its type, or too long": out}
    whole = {**parts, "train": list(train.values())}
    return Dataset.build("calls", card.name, contract_digest(card), LICENCE, origins, whole, left_out)


def main() -> None:
    """Writes the folder."""
    parser = command_line(__doc__, "the folder with bfcl and sealtools")
    given = parser.parse_args()
    write(made(given.data), given.out)


if __name__ == "__main__":
    main()
