"""Answer sheets: answers of agents to rows of public sets with token log-probabilities, collected once into files.

One file for each arm: the agent without checks (`base`), samples at a temperature of 0.7 (`sample1` and on), answers of
other agents that have not seen the first (`blind1` and on), and the entailment agent on the first answer (`claim`). A
line is a row in the format of `orchestra certify --predictions`. Rows in a file are not run again unless the agent's
card, its weights or its inputs have changed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from orchestra import Orchestra
from orchestra.agents.card import Card
from orchestra.core.events import AttemptFinished
from orchestra.learn.evaluation.config import FILE, find_evaluation
from orchestra.learn.evaluation.evaluation import EVALUATION_PURPOSE, sample_rows
from orchestra.learn.evaluation.metrics import MetricConfig
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet, read_selected_rows
from orchestra.schema.strict_json import canonical, digest
from orchestra.workflows.python.steps import Agent

AT_ONCE = 32
TIMED = 16
"""Number of rows for measuring the latency of single calls."""
WARM = 0.7
"""Temperature of samples (Wang et al. 2022, https://arxiv.org/abs/2203.11171)."""


@dataclass(frozen=True)
class Set:
    """A public set, the agent that answers it, and the other agents that are called."""

    name: str
    agent: str
    evaluation: str = ""
    kind: str = "deterministic"
    """The kind of goal: `deterministic`, `reading`, or none."""
    most: int | None = None
    """Maximal number of rows for any `--rows`; 0 for all."""
    samples: int = 0
    blind: tuple[str, ...] = ()
    """Agents that answer the same inputs without the first answer."""
    claims: bool = False
    measure: MetricConfig | None = None
    """The criterion of correctness, if it is not the first such metric of the agent's `evaluation.yaml`."""
    title: str = ""
    """Name in tables and files, if several agents answer one set."""

    def __post_init__(self) -> None:
        """The default title is the name of the set."""
        object.__setattr__(self, "title", self.title or self.name)


FACTS = MetricConfig(
    of="accuracy",
    field="label",
    means={"supported": "support", "contradicted": "refute", "not stated": "irrelevant"},
    where_not={"label": ["partial"]},
)
SCOPE = MetricConfig(of="accuracy", field="intent")
"""Out-of-scope messages are included: accepting one with an intent is wrong."""
READERS, CALCULATORS = ("extractive_reader", "generative_reader"), ("deductive_calculator", "generative_calculator")
SETS = (
    Set("xquad_en", "generative_reader", kind="reading", most=0, samples=5, blind=("extractive_reader",), claims=True),
    Set("svamp", "generative_calculator", "svamp", most=0, samples=5, blind=("deductive_calculator",)),
    Set("gsm8k", "generative_calculator", "gsm8k", samples=5, blind=("deductive_calculator",)),
    Set("bfcl", "caller", most=0, samples=1),
    Set("tatqa", "table_reader", most=0, blind=("generative_reader",)),
    Set("begin", "entailment", "begin", kind="", most=0),
    Set("factcheckgpt", "entailment", "factcheckgpt", kind="", most=0, measure=FACTS),
    Set("restaurant8k", "crf_extractor", most=0, blind=("encoder_extractor",)),
    Set("banking77", "banking_intent", kind="", most=0),
    Set("clinc150", "assistant_intent", kind="", most=3000, measure=SCOPE),
    Set("xquad_en", "reader", kind="reading", most=0, blind=READERS, claims=True, title="xquad_en, reader"),
    Set("svamp", "calculator", "svamp", most=0, blind=CALCULATORS, title="svamp, calculator"),
    Set("gsm8k", "calculator", "gsm8k", blind=CALCULATORS, title="gsm8k, calculator"),
    Set(
        "restaurant8k",
        "extractor",
        most=0,
        blind=("crf_extractor", "encoder_extractor"),
        title="restaurant8k, extractor",
    ),
)


class Sheet(msgspec.Struct, frozen=True):
    """An answer to a row."""

    id: str
    output: Any = None
    score: float | None = None
    logprobs: tuple[float, ...] = ()
    """Log-probabilities of the output tokens; empty for agents that are not language models."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    """Duration of the call among concurrent ones."""
    error: str = ""
    of: str = ""
    """Digest of the agent's card, weights and inputs. Empty in older files, whose rows are run again."""


@dataclass(frozen=True)
class Arm:
    """One way to answer the rows of a set."""

    of: Set
    name: str
    card: Card
    inputs: Mapping[str, dict[str, Any]]
    """Inputs by row id."""

    @property
    def alone(self) -> Arm:
        """Returns the arm for a few rows, run one after the other: the latency of single calls."""
        return replace(
            self, name=f"{self.name}.alone", inputs={name: self.inputs[name] for name in sorted(self.inputs)[:TIMED]}
        )

    def file(self, out: Path) -> Path:
        """Returns the file of its answers."""
        return out / f"{self.of.title}.{self.name}.jsonl"

    @cached_property
    def marks(self) -> dict[str, str]:
        """Returns the digest that an up-to-date answer to each row has."""
        who = [self.card.digest, self.card.weights_digest]
        return {name: digest(canonical([*who, given]))[:16] for name, given in self.inputs.items()}

    def missing(self, out: Path) -> list[str]:
        """Returns the rows without an answer; outdated answers are removed from the file."""
        file = self.file(out)
        known = read(file)
        kept = {name: sheet for name, sheet in known.items() if sheet.of and sheet.of == self.marks.get(name, sheet.of)}
        if len(kept) < len(known):
            partial = file.with_suffix(".partial")
            partial.write_bytes(b"".join(msgspec.json.encode(sheet) + b"\n" for sheet in kept.values()))
            partial.replace(file)
        return [name for name in self.marks if name not in kept]


def rows_of(one: Set, card: Card, data: Path, rows: int) -> EvaluationSet:
    """Returns a sample of the dev rows that the agent's `evaluation.yaml` names, drawn by its seed."""
    assert card.folder is not None
    named = find_evaluation(card.folder / FILE, one.evaluation)[1].rows
    assert named is not None
    found = read_selected_rows(data, named if one.measure is None else named.model_copy(update={"where": {}}))
    if one.measure is not None and (apart := one.measure.where_not):
        kept = [row for row in found.rows if all(row.expected.get(key) not in values for key, values in apart.items())]
        found = EvaluationSet(found.name, found.digest, kept, found.reference_rows)
    return sample_rows(found, rows if one.most is None else one.most, named.seed)


def plain(card: Card, **more: Any) -> Card:
    """Returns the card without checks: every answer counts."""
    return card.with_settings(**({"checks": (), "otherwise": (), "accept": None} | more))


def arms_of(one: Set, cards: Mapping[str, Card], test: EvaluationSet, out: Path) -> Iterable[Arm]:
    """Returns the arms of a set in order; arms about an answer come after the answer."""
    card = cards[one.agent]
    inputs = {row.id: row.input for row in test.rows}
    yield Arm(one, "base", plain(card), inputs)
    for number, other in enumerate((cards[name] for name in one.blind), 1):
        yield Arm(one, f"blind{number}", plain(other), {row.id: as_input(other, row) for row in test.rows})
    for number in range(1, one.samples + 1):
        sampling = {"temperature": card.sampling.temperature or WARM, "seed": number}
        yield Arm(one, f"sample{number}", plain(card, sampling=sampling), inputs)
    if one.claims:
        answered = read(out / f"{one.title}.base.jsonl")
        yield Arm(one, "claim", plain(cards["entailment"]), dict(_claims(test.rows, answered)))


def as_input(card: Card, row: EvaluationRow) -> dict[str, Any]:
    """Returns a row's input for another agent: unchanged if the inputs are the same, else with its text as a passage or
    as paragraphs.
    """
    given = row.input
    if given.keys() == card.input_schema["properties"].keys():
        return given
    texts = (
        [given["context"]]
        if "context" in given
        else [*map(_line, given.get("table", ())), *given.get("paragraphs", ())]
    )
    if card.evidence == "context":
        return {"question": given["question"], "context": "\n".join(texts)}
    question = given["question"]
    return {"question": question, "table": given.get("table", []), "paragraphs": texts or [question]}


def _line(cells: Sequence[str]) -> str:
    return " ".join(cell for cell in cells if cell)


def _claims(questions: Sequence[EvaluationRow], answered: Mapping[str, Sheet]) -> Iterable[tuple[str, dict[str, Any]]]:
    for row in questions:
        answer = (answered[row.id].output or {}).get("answer") if row.id in answered else None
        if answer:
            yield row.id, {"claim": f"{row.input['question']} {answer}", "evidence": row.input["context"]}


def read(file: Path) -> dict[str, Sheet]:
    """Reads the answers of a file; the last line may be torn."""
    found: dict[str, Sheet] = {}
    for line in file.read_bytes().split(b"\n")[:-1] if file.exists() else ():
        sheet = msgspec.json.decode(line, type=Sheet)
        found[sheet.id] = sheet
    return found


@dataclass
class Collector:
    """Collects missing answers until a deadline."""

    orchestra: Orchestra
    out: Path
    until: float = float("inf")
    """Deadline on the monotonic clock."""
    say: Callable[[str], None] = print
    at_once: int = AT_ONCE
    bodies: dict[str, list[bytes]] = field(default_factory=dict)
    """Request bodies of the sets' own agents, for measurements."""

    async def collect(self, arm: Arm) -> None:
        """Collects the missing rows of an arm, longest inputs first."""
        file = arm.file(self.out)
        missing = arm.missing(self.out)
        if not missing or time.monotonic() > self.until:
            return
        runs, step, places = (
            self.orchestra.options(purpose=EVALUATION_PURPOSE),
            Agent.from_card(arm.card),
            asyncio.Semaphore(self.at_once),
        )
        began, tokens, done = time.monotonic(), 0, 0
        with file.open("ab") as sheets:

            async def one(name: str, given: dict[str, Any]) -> None:
                nonlocal tokens, done
                async with places:
                    if time.monotonic() > self.until:
                        return
                    sheet = await self._asked(arm, runs, step, name, given)
                if not sheet.error.startswith("F"):  # an unavailable server: the row is run again next time
                    sheets.write(msgspec.json.encode(sheet) + b"\n")
                    done += 1
                tokens += sheet.output_tokens

            async with asyncio.TaskGroup() as group:
                for name in missing:
                    group.create_task(one(name, arm.inputs[name]))
        took = time.monotonic() - began
        self.say(
            f"{arm.of.title}, {arm.name}: {done} of {len(missing)} rows in {took:.0f} s, {tokens / took:.0f} tokens/s"
        )

    async def _asked(self, arm: Arm, runs: Orchestra, step: Agent[..., Any], name: str, given: dict[str, Any]) -> Sheet:
        result = await (await runs.start(step, **given)).wait()
        ended = [event for event in result.events if isinstance(event, AttemptFinished)]
        last = ended[-1] if ended else None
        logprobs: tuple[float, ...] = ()
        if last is not None and last.received:
            if arm.card.kind != "ensemble":  # the answer of an ensemble may be another member's than these tokens
                logprobs = _logprobs(await runs.journal.get_blob(last.received) or b"{}")
            if arm.name == "base":
                self.bodies.setdefault(arm.of.agent, []).append(await runs.journal.get_blob(last.sent) or b"")
        used = last.usage if last is not None else result.usage
        return Sheet(
            id=name,
            of=arm.marks[name],
            output=result.value,
            score=last.confidence if last is not None else None,
            logprobs=logprobs,
            prompt_tokens=used.prompt_tokens,
            output_tokens=used.output_tokens,
            seconds=round(used.seconds, 4),
            error="" if result.status == "done" else f"{last.error if last is not None else ''} {result.error}".strip(),
        )


def _logprobs(received: bytes) -> tuple[float, ...]:
    choices = json.loads(received).get("choices") or [{}]
    return tuple(round(one["logprob"], 5) for one in (choices[0].get("logprobs") or {}).get("content") or ())
