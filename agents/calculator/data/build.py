"""The training data set of the agent `calculator`, from the training split of GSM8K and from generated stories.

    python -m agents.calculator.data.build --data FOLDER/gsm8k --out FOLDER [--steps 2] [--last 2500] [--stories 12000]
                                    [--draws 1]

GSM8K (Cobbe et al. 2021, https://arxiv.org/abs/2110.14168), `github.com/openai/grade-school-math`, MIT. Kinds of rows,
all deterministic:

- *asked*: a problem, and the steps of its solution (`<<48/2=24>>`) as one expression over the problem's numbers. Rows
  are left out if the expression has another value than the answer, is long, or has numbers that are neither in the
  problem nor common constants (`bench.gsm8k.KNOWN`).
- *last*: the last step of a longer solution: the results of the earlier steps are given, and the problem's own question
  is kept.
- *drawn*: *asked* with other numbers, `--draws` times.
- *stories*: `agents.calculator.data.stories`, the templates of this repository.
- *written*: the problems in `written/` (`bench.written_rows`), unchanged; *renumbered*: the same number of these with
  other numbers.

Rows are split by problem, template and written story. SVAMP, on which the agent is evaluated too, is not read.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from agents.calculator.data.stories import TEMPLATES, stories
from bench.data_sets import command_line, write
from bench.gsm8k import Solved, asked, drawn, lasts
from bench.written_rows import written
from orchestra.agents.card import Card
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, DatasetSource, Split, SplitShares, split
from orchestra.schema.strict_json import digest
from orchestra.text.arithmetic import evaluate

ROOT = Path(__file__).resolve().parents[3]
SEED = 3
SHARES = SplitShares(tune=0.025, test=0.0)


def row(kind: str, group: str, question: str, expression: str) -> DatasetRow:
    """Builds a row of the calculator."""
    mark = digest(json.dumps([question, expression]).encode())[:16]
    return DatasetRow(f"{kind}-{mark}", {"question": " ".join(question.split())}, {"expression": expression}, group)


def data_set(folder: Path, steps: int, most_last: int, most_stories: int, draws: int) -> Dataset:
    """Builds the data set. Problems and templates of the tune split do not occur in the train split."""
    source = folder / "train.jsonl"
    read = [
        json.loads(line) for line in source.read_text("utf-8").split("\n") if line
    ]  # problems contain Unicode line breaks
    problems = list(asked(read, steps))
    chance = random.Random(SEED)
    more = [(name, other) for name, one in problems if (other := drawn(one, chance)) is not None]
    ends = list(lasts(read))
    ends = chance.sample(ends, min(most_last, len(ends)))
    ours, origin = written("problems")
    others = list(renumbered(ours, chance))
    for _ in range(1, draws):
        more += [(name, other) for name, one in problems if (other := drawn(one, chance)) is not None]
        others += renumbered(ours, chance)
    kinds: dict[str, list[DatasetRow]] = {
        "asked": [row("asked", name, one.question, one.expression) for name, one in problems],
        "last": [row("last", name, one.question, one.expression) for name, one in ends],
        "drawn": [row("drawn", name, one.question, one.expression) for name, one in more],
        "stories": [row("story", group, one.question, one.expression) for group, one in stories(most_stories, SEED)],
        "written": ours,
        "renumbered": others,
    }
    return _put_together(kinds, digest(source.read_bytes()), origin)


def renumbered(rows: Sequence[DatasetRow], chance: random.Random) -> Iterator[DatasetRow]:
    """Returns written problems with other numbers, if the role of each number is certain; in the group of their
    original. Numbers that the expression does not need are kept, so a story may become inconsistent; its solution stays
    valid.
    """
    for one in rows:
        question, expression = str(one.input["question"]), str(one.output["expression"])
        other = drawn(Solved(question, expression, evaluate(expression), 1), chance)
        if other is not None:
            yield row("renumbered", one.group, other.question, other.expression)


def _put_together(kinds: Mapping[str, Sequence[DatasetRow]], read: str, ours: DatasetSource) -> Dataset:
    seen: set[str] = set()
    left_out: Counter[str] = Counter()
    parts: dict[Split, list[DatasetRow]] = {"train": [], "tune": [], "test": []}
    for kind, rows in kinds.items():
        fresh = [one for one in {one.id: one for one in rows}.values() if one.id not in seen]
        seen.update(one.id for one in fresh)
        left_out["the same again"] += len(rows) - len(fresh)
        print(f"{kind}: {len(fresh)} rows")
        for part, found in split(fresh, SHARES).items():
            parts[part] += found
    made = {
        "asked": "solutions as one expression",
        "last": "last steps of solutions",
        "drawn": "the first with other numbers",
    }
    origins = [
        DatasetSource("GSM8K, Cobbe et al. 2021, train part", "MIT", read, text, len(kinds[kind]))
        for kind, text in made.items()
    ]
    own = digest(b"".join(path.read_bytes() for path in TEMPLATES))
    origins.append(
        DatasetSource("agents/calculator/data/templates", "Apache-2.0", own, "templates, filled", len(kinds["stories"]))
    )
    origins += [ours, msgspec.structs.replace(ours, description="with other numbers", rows=len(kinds["renumbered"]))]
    card = Card.load(ROOT / "agents" / "generative_calculator")
    return Dataset.build(
        "calculator", "calculator", contract_digest(card), "MIT; Apache-2.0", origins, parts, dict(left_out)
    )


def main() -> None:
    """Writes the folder."""
    parser = command_line(__doc__, "the folder gsm8k")
    parser.add_argument("--steps", type=int, default=2, help="maximal number of steps of a GSM8K problem")
    parser.add_argument("--last", type=int, default=2500, help="rows of the kind last")
    parser.add_argument("--stories", type=int, default=12000, help="rows of the kind stories")
    parser.add_argument("--draws", type=int, default=1, help="copies of a problem with other numbers")
    given = parser.parse_args()
    write(data_set(given.data, given.steps, given.last, given.stories, given.draws), given.out)


if __name__ == "__main__":
    main()
