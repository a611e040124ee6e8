"""Requests that no agent of the fleet serves, in whole or in part, and similar ones that are served: the results of
`orchestra ask`.

    python -m bench.absent [FILE] [--fleet NAME] [--router AGENT] [--page]

The requests are in `bench/absent.yaml`: `absent` is `all`, `none`, or the literal parts that nothing serves; `served`
are the kinds of work of the others. Each request is run in turn on the real server. *Said*: the request, or the part,
was refused as not served (R014) before any answer. *Said afterwards*: a step produced nothing, and `ask` reports it for
these words. *Said of all of it*: either was reported for a complete request of which a part is served. *Silent*: all
others. *Planned as it should be*: all returned values come from agents for that kind of work. `--page` writes the table
into docs/concepts/router.md, and below it each request that was not reported, or that was refused although it is
served.
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
from orchestra.cli.files import read_documents
from orchestra.cli.run.plan import DESK_WORKFLOW, EmptyStep, find_empty_steps
from orchestra.journal.history import History
from orchestra.router.plan import Plan
from orchestra.schema.strict_yaml import load_yaml
from orchestra.workflows.model import REQUEST

REQUESTS, PAGE = ROOT / "bench" / "absent.yaml", ROOT / "docs" / "concepts" / "router.md"
MARKS = "<!-- begin:absent -->", "<!-- end:absent -->"
TABLE = [
    ["Group", "Leader", "Members", "Fee"],
    ["Choir", "Nora", "24", "30"],
    ["Chess", "Emil", "9", "12"],
    ["Walking", "Ida", "31", "0"],
]
TEXT = (
    "The parish hall is open from nine to five. The key hangs in the office. "
    "Whoever borrows chairs returns them by Monday."  # prose: ok
)
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
"""The returned values that serve each kind of work."""
NAMED = 60
"""Number of characters of a part that a reason quotes."""
SAID, WHOLE, AFTERWARDS, UNSAID = "reported", "reported of all of it", "reported afterwards", "not reported"
WHOLLY = "all of it is served"
SERVED, OTHERWISE, REFUSED = "planned as it should be", "planned otherwise", "refused"
HEADS = {
    "nothing does it": (SAID, AFTERWARDS, UNSAID),
    "a part of it is served": (SAID, WHOLE, AFTERWARDS, UNSAID),
    WHOLLY: (SERVED, OTHERWISE, REFUSED),
}


@dataclass(frozen=True)
class Wanted:
    """A request, and its parts that nothing serves."""

    request: str
    values: Mapping[str, Any]
    absent: str | Sequence[str]
    served: Sequence[str]

    @property
    def head(self) -> str:
        """Returns the row of the table that it is counted in."""
        absent, partly, wholly = HEADS
        return {"all": absent, "none": wholly}.get(str(self.absent), partly)


@dataclass(frozen=True)
class Told:
    """The result of a request."""

    wanted: Wanted
    draft: PlanResult
    idle: Sequence[EmptyStep]
    """The steps that `ask` reports as empty at the end."""

    @property
    def verdict(self) -> str:
        """Returns the column of the table that it is counted in."""
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
        """Returns whether each returned value comes from a wanted kind of work, and all wanted kinds are served."""
        skills = {step.name: step.capability for step in plan.steps}
        given = {skills[value.root] for value in plan.answer.values}
        able = [{*SKILLS[kind]} for kind in self.wanted.served]
        idle = [
            one for one in self.idle if one.capability != DESK_WORKFLOW or "desk" not in self.wanted.served
        ]  # a handover to a person includes sorting
        return not idle and given <= set.union(*able) and all(given & some for some in able)


def requests(file: Path = REQUESTS) -> list[Wanted]:
    """Reads the requests of a file."""
    hand = {"documents": read_documents(DOCUMENTS), "table": TABLE, "text": TEXT}
    said: Mapping[str, Any] = load_yaml(file.read_bytes(), str(file)).value
    return [
        Wanted(one["request"], {name: hand[name] for name in one.get("with", ())}, one["absent"], one.get("served", ()))
        for one in said["requests"]
    ]


async def answered(wanted: Sequence[Wanted], fleet: str | None, router: str) -> list[Told]:
    """Runs the requests one after the other."""
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
    """Returns the table and the requests with wrong results."""
    lines = []
    for head, columns in HEADS.items():
        counts = Counter(one.verdict for one in told if one.wanted.head == head)
        lines.append(
            f"| {head}, {counts.total()} requests | {', '.join(f'{name} {counts[name]}' for name in columns)} |"
        )
    wrong = [one for one in told if one.verdict in (UNSAID, OTHERWISE, REFUSED)]
    shown = [f"- {one.verdict}: `{one.wanted.request.strip()}`, {_plan(one)}".replace("\n", " ") for one in wrong]
    return (
        f"\n`python -m bench.absent --page`, {stamp}\n\n| | |\n|---|---|\n" + "\n".join([*lines, "", *shown]) + "\n\n"
    )


def _plan(one: Told) -> str:
    at_hand = ", ".join(one.wanted.values) or "nothing"
    plan = "; ".join(str(one.draft.plan).splitlines()) if one.draft.plan is not None else "no plan"
    return f"with {at_hand} at hand: `{plan}`"


def main() -> None:
    """Runs the requests and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=REQUESTS)
    parser.add_argument("--fleet")
    parser.add_argument("--router", default="router")
    parser.add_argument("--page", action="store_true", help="write the table into docs/concepts/router.md")
    given = parser.parse_args()
    text = table(asyncio.run(answered(requests(given.file), given.fleet, given.router)), now())
    print(text)
    if given.page:
        PAGE.write_text(between(PAGE.read_text("utf-8"), MARKS, text), "utf-8")


if __name__ == "__main__":
    main()
