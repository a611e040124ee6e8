"""Requests that nothing in the fleet does, in whole or in part, and others that sound like such ones: what `orchestra ask` makes of them.

    python -m bench.absent [FILE] [--fleet NAME] [--router AGENT] [--page]

The requests stand in `bench/absent.yaml`: `absent` is `all`, `none`, or the parts that nothing does, word for word; `served` are the kinds
of work of the others. Each is asked, one after the other, on the real server. *Said*: the request, or the part, was refused as one that
nothing serves (R014), before anything was answered; *said afterwards*: a step made
nothing of it, and `ask` says so of these words; *said of all of it*: either was said of a request of which a part is served; *not said* is
the rest. *Planned as it should be*: all values that are
returned come from what serves that kind of work. With `--page` the table goes into docs/router.md, and below it each
request of which it was not said, or that was refused and is served.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ask import DOCUMENTS
from bench.evaluation_tables import between
from bench.machine import ROOT, now
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions, PlanResult, plan_result, request_workflow
from orchestra.cli.inputs import read_documents
from orchestra.cli.run.plan import DESK_WORKFLOW, EmptyStep, find_empty_steps
from orchestra.journal.history import History
from orchestra.router.plan import Plan
from orchestra.schema.strict_yaml import load_yaml
from orchestra.workflows.model import REQUEST

REQUESTS, PAGE = ROOT / "bench" / "absent.yaml", ROOT / "docs" / "router.md"
MARKS = "<!-- begin:absent -->", "<!-- end:absent -->"
TABLE = [
    ["Group", "Leader", "Members", "Fee"],
    ["Choir", "Nora", "24", "30"],
    ["Chess", "Emil", "9", "12"],
    ["Walking", "Ida", "31", "0"],
]
TEXT = "The parish hall is open from nine to five. The key hangs in the office. Whoever borrows chairs returns them by Monday."
SKILLS = {
    "booking": ("extractor", "support_desk"),
    "desk": ("support_desk",),
    "documents": ("answer_from_documents",),
    "table": ("financial_question", "table_reader"),
    "sum": ("calculator",),
    "text_question": ("reader",),
    "claim_text": ("entailment",),
    "claim_documents": ("entailment",),
    "bank_intent": ("banking_intent", "triage_message"),
    "assistant_intent": ("assistant_intent",),
}
"""What serves each kind of work, as a value that is returned."""
NAMED = 60
"""Characters of a part by which a reason names it: it shows no more of a long one."""
SAID, WHOLE, AFTERWARDS, UNSAID = "said", "said of all of it", "said afterwards", "not said"
WHOLLY = "all of it is served"
SERVED, OTHERWISE, REFUSED = "planned as it should be", "planned otherwise", "refused"
HEADS = {
    "nothing does it": (SAID, AFTERWARDS, UNSAID),
    "a part of it is served": (SAID, WHOLE, AFTERWARDS, UNSAID),
    WHOLLY: (SERVED, OTHERWISE, REFUSED),
}


@dataclass(frozen=True)
class Wanted:
    """A request, and what of it nothing does."""

    request: str
    values: Mapping[str, Any]
    absent: str | Sequence[str]
    served: Sequence[str]

    @property
    def head(self) -> str:
        """The line of the table that it counts in."""
        absent, partly, wholly = HEADS
        return {"all": absent, "none": wholly}.get(str(self.absent), partly)


@dataclass(frozen=True)
class Told:
    """What came of a request."""

    wanted: Wanted
    draft: PlanResult
    idle: Sequence[EmptyStep]
    """The steps of which `ask` says at the end that they made nothing of what they were given."""

    @property
    def verdict(self) -> str:
        """The column of the table that it counts in."""
        if self.wanted.head == WHOLLY:
            return REFUSED if self.draft.plan is None else SERVED if self._as_it_should(self.draft.plan) else OTHERWISE
        parts = [self.wanted.request] if isinstance(self.wanted.absent, str) else self.wanted.absent
        if self.draft.plan is None:
            reasons = " ".join(one.reason for one in self.draft.rejections)
            named = isinstance(self.wanted.absent, str) or all(part[:NAMED] in reasons for part in parts)
            return UNSAID if not self.draft.declined else SAID if named else WHOLE
        left = self.draft.unserved_parts
        told = [one.request_text for one in self.idle] + (
            [*left.parts] if left is not None and not left.unassigned_values else []
        )
        request = self.wanted.request
        if all(
            any(words in part or (part in words and (words != request or part == request)) for words in told)
            for part in parts
        ):
            return AFTERWARDS
        return WHOLE if request in told else UNSAID

    def _as_it_should(self, plan: Plan) -> bool:
        """Whether each value that is returned comes from what serves a kind of work that is wanted, and all of these are served."""
        skills = {step.name: step.capability for step in plan.steps}
        given = {skills[value.root] for value in plan.answer.values}
        able = [{*SKILLS[kind]} for kind in self.wanted.served]
        idle = [
            one for one in self.idle if one.capability != DESK_WORKFLOW or "desk" not in self.wanted.served
        ]  # who hands over to a person sorts
        return not idle and given <= set.union(*able) and all(given & some for some in able)


def requests(file: Path = REQUESTS) -> list[Wanted]:
    """The requests of a file."""
    hand = {"documents": read_documents(DOCUMENTS), "table": TABLE, "text": TEXT}
    said: Mapping[str, Any] = load_yaml(file.read_bytes(), str(file)).value
    return [
        Wanted(one["request"], {name: hand[name] for name in one.get("with", ())}, one["absent"], one.get("served", ()))
        for one in said["requests"]
    ]


async def answered(wanted: Sequence[Wanted], fleet: str | None, router: str) -> list[Told]:
    """What comes of the requests, one after the other."""
    found = []
    async with Orchestra.open(fleet) as orchestra:
        for one in wanted:
            step = request_workflow(orchestra, one.request, one.values, PlanOptions(router=router, cache=False))
            run = await orchestra.start(step, **{REQUEST: one.request, **one.values})
            result = await run.wait()
            events = [event async for event in run.events()]
            draft = await plan_result(orchestra, step, one.request, events)
            if draft.plan is None and not draft.rejections:
                raise RuntimeError(f"the router was not asked: {result.error}")
            found.append(Told(one, draft, [*find_empty_steps(draft, History.of(events), orchestra.settings)]))
    return found


def table(told: Sequence[Told], stamp: str) -> str:
    """The table, and the requests that went wrong."""
    lines = []
    for head, columns in HEADS.items():
        counts = Counter(one.verdict for one in told if one.wanted.head == head)
        lines.append(
            f"| {head}, {counts.total()} requests | {', '.join(f'{name} {counts[name]}' for name in columns)} |"
        )
    wrong = [one for one in told if one.verdict in (UNSAID, OTHERWISE, REFUSED)]
    shown = [f"- {one.verdict}: *{one.wanted.request.strip()}*, {_plan(one)}".replace("\n", " ") for one in wrong]
    return (
        f"\n`python -m bench.absent --page`, {stamp}\n\n| | |\n|---|---|\n" + "\n".join([*lines, "", *shown]) + "\n\n"
    )


def _plan(one: Told) -> str:
    at_hand = ", ".join(one.wanted.values) or "nothing"
    plan = "; ".join(str(one.draft.plan).splitlines()) if one.draft.plan is not None else "no plan"
    return f"with {at_hand} at hand: `{plan}`"


def main() -> None:
    """Asks, and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=REQUESTS)
    parser.add_argument("--fleet")
    parser.add_argument("--router", default="router")
    parser.add_argument("--page", action="store_true", help="write the table into docs/router.md")
    given = parser.parse_args()
    text = table(asyncio.run(answered(requests(given.file), given.fleet, given.router)), now())
    print(text)
    if given.page:
        PAGE.write_text(between(PAGE.read_text("utf-8"), MARKS, text), "utf-8")


if __name__ == "__main__":
    main()
