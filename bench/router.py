"""The router: plans of an untuned model under the grammars, plans of the trained one compared with the correct ones,
and the cost of a grammar.

    python -m bench.router --data FOLDER [--plans 200] [--whole] [--steps 4] [--at-once 8] [--kept FILE] [--page]
    [--fleet NAME]
    python -m bench.router --rows DATASET [--whole] [--agent router] [--free]
    python -m bench.router --grammars

The first form samples plans from the base of the fleet, without an adapter and at temperature 1, for the requests of
`agents.router.data.build`. It counts the plans and the errors before any repair: unknown capabilities, undefined
references and values of the wrong type, as validation finds them. A truncated line counts as wrong. `--kept` stores the
result of each request in a file, and a second call continues there; `--page` writes the figures into
docs/concepts/router.md.

The second form runs an agent on the held-out rows of a data set: the share of correct plans, line for line, and the F1
of its capabilities. The third form measures the time of the grammar of a second step for 10, 100 and 1,000 agents, ours
and llguidance's part.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from agents.router.data.build import VALUES, pieces, wanted
from agents.router.data.request_forms import Forms
from bench.evaluation_tables import between
from bench.machine import ROOT, now
from orchestra.agents.card_file import SamplingParameters
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions, PlanResult, plan
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.settings import Settings
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.evaluation.bootstrap import estimate_interval
from orchestra.learn.evaluation.metrics import Case, Metric
from orchestra.router.capabilities import Capabilities, Capability
from orchestra.router.multi_part import find_uncovered, split_request
from orchestra.router.plan_grammar import step_grammar
from orchestra.router.plan_syntax import PlanAnswer, PlanStep, parse_line, parse_plan
from orchestra.router.planner import DECLINED_CODE
from orchestra.router.validation import Rejection
from orchestra.workflows.model import PlanLimits
from orchestra.workflows.python.steps import Agent, Workflow

SIZES = (10, 100, 1000)
ROUNDS = 5
NONE = str(PlanAnswer(()))
AT_ONCE = 8
PAGE = ROOT / "docs" / "concepts" / "router.md"
MARKS = "<!-- sampled -->", "<!-- end:sampled -->"
SKILL = re.compile(r"= \[?(\w+)\(")
WRONG = {
    "R002": "phantoms",
    "R003": "arguments",
    "R004": "references",
    "R005": "types",
    "R001": "cut off, or the same call again",
    "R006": "no end",
    "R012": "texts that are no piece of the request",
}
TEXT: dict[str, Any] = {"type": "string"}
READER = Capability(
    "reader",
    "agent",
    {"question": TEXT, "context": TEXT},
    frozenset({"question", "context"}),
    {"type": "object", "properties": {"answer": TEXT}, "required": ["answer"]},
)


@dataclass(frozen=True)
class Asked:
    """A request with its values, and the correct plan, if known."""

    request: str
    values: tuple[str, ...]
    plan: str = ""


@dataclass(frozen=True)
class Made:
    """The result of a request, with its cost."""

    number: int
    valid: bool
    """Whether there is a plan that compiles."""
    skills: int = 0
    """Number of steps of the plan."""
    questions: int = 0
    written: int = 0
    """Number of tokens."""
    faults: tuple[tuple[str, str], ...] = ()
    """Codes and reasons."""

    @classmethod
    def of(cls, number: int, draft: PlanResult, refused: str = "") -> Made:
        """Returns the result of a draft. `refused` is the compiler's reason for refusing a plan that validation
        accepts.
        """
        faults = [(one.code, str(one)) for one in draft.rejections] + ([("compiler", refused)] if refused else [])
        steps = len(draft.plan.steps) if draft.plan is not None else 0
        valid = draft.plan is not None and not refused
        return cls(number, valid, steps, draft.question_count, draft.usage.output_tokens, tuple(faults))


Took = Callable[[int, PlanResult, float], None]
"""Called for each draft with the number of its request and its duration in seconds."""


async def drafts(
    asked: Sequence[Asked],
    options: PlanOptions,
    settings: Settings,
    at_once: int = AT_ONCE,
    took: Took | None = None,
    *,
    untuned: bool = False,
) -> list[PlanResult]:
    """Plans these requests. Raises `FleetError` if no server is available."""
    settings = settings.model_copy(update={"concurrency": max(settings.concurrency, at_once)})
    async with Orchestra.open(settings, fleet="start") as orchestra:
        if untuned:
            card = orchestra.registry.card(str(options.router))
            warm = SamplingParameters(temperature=1.0)
            wild = card.with_settings(name="untuned_router", adapter=None, untuned=None, sampling=warm)
            options = replace(options, router=Agent.from_card(wild))
        gate = asyncio.Semaphore(at_once)

        async def one(number: int, what: Asked) -> PlanResult:
            async with gate:
                began = time.perf_counter()
                draft = await _planned(orchestra, what, options)
                if took is not None:
                    took(number, draft, time.perf_counter() - began)
            return draft

        return await asyncio.gather(*(one(number, what) for number, what in enumerate(asked)))


async def _planned(orchestra: Orchestra, what: Asked, options: PlanOptions) -> PlanResult:
    """Returns a plan; none if a call of the router failed. Raises `FleetError` if no server is available."""
    try:
        return await plan(orchestra, what.request, {name: VALUES[name] for name in what.values}, options)
    except OrchestraError as error:
        if error.code.startswith("F0"):
            raise
        return PlanResult(
            what.request, Capabilities({}), None, (Rejection(error.code, "/", error.message),), question_count=1
        )


def refused(orchestra: Orchestra, draft: PlanResult) -> str:
    """Returns the compiler's reason for refusing a plan that validation accepts; empty if it compiles."""
    try:
        if draft.plan is not None:
            orchestra.program(Workflow.from_graph(draft.graph))
    except InputError as error:
        return f"{error.code}: {error.message}"
    return ""


class Kept:
    """Results of sampled requests, in a file with a line for each, so that sampling can be interrupted."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.made: dict[int, Made] = {}
        self.seconds = 0.0
        """Total duration of all calls."""
        for line in path.read_text("utf-8").splitlines() if path is not None and path.is_file() else ():
            said = json.loads(line)
            if "seconds" in said:
                self.seconds += said["seconds"]
            else:
                self.add(Made(**{**said, "faults": tuple(map(tuple, said["faults"]))}), write=False)

    def add(self, one: Made, *, write: bool = True) -> None:
        """Adds a result."""
        self.made[one.number] = one
        if write:
            self._write(asdict(one))

    def took(self, seconds: float) -> None:
        """Adds the duration of a call."""
        self.seconds += seconds
        self._write({"seconds": seconds})

    def _write(self, said: Any) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(said) + "\n")


async def sampled(asked: Sequence[Asked], options: PlanOptions, settings: Settings, at_once: int, kept: Kept) -> None:
    """Samples plans of the untuned base at temperature 1 for requests without a result."""
    left = [number for number in range(len(asked)) if number not in kept.made]
    async with Orchestra.open(settings, fleet="none") as orchestra:

        def took(number: int, draft: PlanResult, _: float) -> None:
            kept.add(Made.of(left[number], draft, refused(orchestra, draft)))

        began = time.monotonic()
        try:
            await drafts([asked[number] for number in left], options, settings, at_once, took, untuned=True)
        finally:
            kept.took(time.monotonic() - began)


def held_out(folder: Path) -> list[Asked]:
    """Returns the held-out rows of a data set whose plan covers the complete request; other ones are returned to the
    router and refused.
    """
    rows = [row for row in Dataset.load(folder).rows["tune"] if not row.input["plan"] and not _partial(row)]
    return [Asked(row.input["request"], _names(row.input["values"]), row.output) for row in rows]


def _partial(row: DatasetRow) -> bool:
    lines = parse_plan(row.output)
    steps, answer = [line for line in lines if isinstance(line, PlanStep)], lines[-1]
    return (
        bool(steps)
        and isinstance(answer, PlanAnswer)
        and find_uncovered(split_request(row.input["request"]), steps, answer) is not None
    )


def _names(values: str) -> tuple[str, ...]:
    names = (line.partition(":")[0].removeprefix("input.") for line in values.splitlines())
    return tuple(name for name in names if name in VALUES)


def right(asked: Sequence[Asked], made: Sequence[PlanResult]) -> str:
    """Returns the number of correct plans and the similarity of the others."""
    same, shares, declined = 0, [], 0
    for what, draft in zip(asked, made, strict=True):
        said = written(draft)
        same += said == what.plan
        if NONE in (said, what.plan):
            declined += said == what.plan
            continue
        wanted_, found = (Counter(SKILL.findall(text)) for text in (what.plan, said))
        common = sum((wanted_ & found).values())
        shares.append(2 * common / max(1, sum(wanted_.values()) + sum(found.values())))
    hopeless = sum(what.plan == NONE for what in asked)
    wrongly = sum(written(draft) == NONE != what.plan for what, draft in zip(asked, made, strict=True))
    return (
        f"  the right plan, line for line: {same / len(made):.3f}; F1 of its skills, where both have any: "
        f"{sum(shares) / len(shares):.3f}\n"
        f"  declined: {declined} of {hopeless} that nothing serves, {wrongly} of {len(made) - hopeless} others"
    )


def written(draft: PlanResult) -> str:
    """Returns the lines of the router; empty if they are not a plan."""
    if draft.plan is None and any(one.code == DECLINED_CODE for one in draft.rejections):
        return NONE
    return str(draft.plan or "")


def told(made: Sequence[PlanResult], seconds: float) -> str:
    """Returns the results as text."""
    wrong = Counter(rejection.code for draft in made for rejection in draft.rejections)
    planned = sum(draft.plan is not None for draft in made)
    lines = sum(draft.question_count for draft in made)
    share = f"{planned} plans ({planned / len(made):.3f}) before any repair or fallback"
    counts = [f"  {name}: {wrong[code]}" for code, name in WRONG.items()]
    return "\n".join([now(), f"{len(made)} requests, {share}; {lines} questions, {lines / seconds:.1f}/s", *counts])


def section(kept: Kept, command: str, stamp: str) -> str:
    """Returns the section of sampled plans."""
    made = list(kept.made.values())
    share = Metric("valid", lambda case: case.output, lambda parts: sum(part["valid"] for part in parts) / len(parts))
    valid = estimate_interval(share, [Case({}, {"valid": float(one.valid)}) for one in made])
    wrong = Counter(code for one in made for code, _ in one.faults)
    names = {**WRONG, "compiler": "refused by the compiler, cycles among it"}
    steps = Counter(one.skills for one in made if one.valid)
    spread = ", ".join(f"{count:,} of {number} step{'s' * (number != 1)}" for number, count in sorted(steps.items()))
    minutes, lines, tokens = kept.seconds / 60, sum(one.questions for one in made), sum(one.written for one in made)
    rows = [f"| {name} | {wrong[code]} |" for code, name in names.items()]
    rows.append(f"| calls that failed | {sum(count for code, count in wrong.items() if code not in names)} |")
    return (
        f"\n{stamp}.\n\n    $ {command}\n\n"
        f"{len(made):,} plans, {valid} valid before any repair or fallback: {spread}. "
        f"{lines:,} questions and {tokens:,} tokens in {minutes:.1f} minutes.\n\n"
        "| what was wrong with the others | |\n|---|---|\n" + "\n".join(rows) + "\n\n"
    )


def examples(kept: Kept, most: int = 12) -> str:
    """Returns examples of errors."""
    reasons = [f"  {number}: {reason[:300]}" for number, one in sorted(kept.made.items()) for _, reason in one.faults]
    return "\n".join(reasons[:most])


def grammars() -> str:
    """Returns the duration of a step's grammar by the number of agents."""
    import llguidance

    tokenizer = llguidance.LLTokenizer("byte")
    lines = [now(), "agents  ours      llguidance  characters"]
    for size in SIZES:
        offer = Capabilities.of(
            [replace(READER, name=f"reader_{number}") for number in range(size)], {"question": TEXT}
        )
        step = parse_line('s1 = reader_1(question=input.question, context="a")')
        assert isinstance(step, PlanStep)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            grammar = step_grammar(replace(offer), [step])
            between = time.perf_counter()
            llguidance.LLMatcher(tokenizer, llguidance.grammar_from("grammar", grammar), log_level=0)
            ours.append(between - began)
            theirs.append(time.perf_counter() - between)
        lines.append(f"{size:6}  {1e3 * median(ours):5.1f} ms  {1e3 * median(theirs):7.1f} ms  {len(grammar):10,}")
    return "\n".join(lines)


def main() -> None:
    """Runs one of the three forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with the sets of agents.router.data.build")
    parser.add_argument("--plans", type=int, default=200)
    parser.add_argument("--rows", type=Path, help="a data set of agents.router.data.build")
    parser.add_argument("--agent", default="router")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--free", action="store_true", help="do not restrict texts to pieces of the request")
    parser.add_argument("--fleet")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="concurrent requests")
    parser.add_argument("--kept", type=Path, help="a file in which results are stored and reused")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/concepts/router.md")
    parser.add_argument("--grammars", action="store_true")
    given = parser.parse_args()
    if given.grammars:
        print(grammars())
        return
    if given.rows is None and given.data is None:
        parser.error("--data, --rows or --grammars")
    settings = Settings.load({"fleet": given.fleet, "journal": "off"})
    limits = PlanLimits(steps=given.steps if given.rows is None else 8, width=8)
    options = PlanOptions(
        router=given.agent,
        limits=limits,
        repairs=0,
        stepwise=not given.whole,
        copied=not given.free,
        grounded=False,  # many rows have unneeded values
        anyway=given.rows is None,
        cache=False,
    )
    if given.rows:
        asked = held_out(given.rows)
        began = time.monotonic()
        made = asyncio.run(drafts(asked, options, settings, given.at_once))
        print(told(made, time.monotonic() - began))
        print(right(asked, made))
        return
    # Requests without remaining pieces are left out, so more are drawn than needed.
    drawn = islice(wanted(pieces(given.data), 2 * given.plans, Forms.read()), given.plans)
    kept = Kept(given.kept)
    asyncio.run(sampled([Asked(one.request, one.values) for one in drawn], options, settings, given.at_once, kept))
    way = " --whole" * given.whole + " --free" * given.free
    text = section(
        kept,
        (
            f"python -m bench.router --data DATA --plans {given.plans} --steps {given.steps}{way} --at-once "
            f"{given.at_once}"
        ),
        now(),
    )
    print(text + examples(kept))
    if given.page:
        PAGE.write_text(between(PAGE.read_text("utf-8"), MARKS, text), "utf-8")


if __name__ == "__main__":
    main()
