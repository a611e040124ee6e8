"""What `orchestra learn promote` and `rollback` do: judge, put in place, and have the running fleet load it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from orchestra.agents.card import Card
from orchestra.app import certificates
from orchestra.app.project import Project
from orchestra.cli.context import Opener, serving
from orchestra.cli.learn.evaluate import Comparison, answered, carded, prepared, strange
from orchestra.cli.output import note
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.adapter_checks import misfit
from orchestra.learn.compatibility import learning
from orchestra.learn.data.provenance import BOTH, LearntPart, known, refuse, rows_of
from orchestra.learn.evaluation import evaluation
from orchestra.learn.evaluation.evaluation import CANDIDATE, INCUMBENT, Arm, Report
from orchestra.learn.evaluation.rows import Test
from orchestra.learn.promotion.candidates import check_candidate
from orchestra.learn.promotion.promotion import TRY, Judgement, Promotion, Shelf, judged, level, promotion


@dataclass(frozen=True, slots=True)
class Promoted:
    """What came of a candidate."""

    report: Report
    judgement: Judgement
    taken: bool
    said: str

    def data(self) -> dict[str, Any]:
        """As plain JSON."""
        differences = {
            name: {"value": one.value, "low": one.low, "high": one.high, "chance": one.chance} for name, one in self.judgement.differences
        }
        judged = {"better": self.judgement.better, "tries": self.judgement.tries, "level": level(self.judgement.tries)}
        return {**self.report.data(), **judged, "taken": self.taken, "differences": differences}


async def promoted(open_: Opener, chosen: Settings, asked: Comparison, *, force: bool) -> Promoted:
    """Judges a candidate, and takes it where it is better or where it is forced."""
    assert asked.candidate is not None, "the verb demands one"
    own = learning(Project.load(chosen).registry.card(asked.agent))
    mark, shelf = check_candidate(own, asked.candidate), Shelf.of(own, Folders.of().adapters)
    for other in strange(chosen, own, asked.candidate):
        if not force:
            raise misfit(asked.candidate, other, "--force takes it all the same, where that is meant")
        note(f"the candidate: {other}")
    if mark == shelf.current:
        raise InputError("N304", f"{asked.agent} has this already: {mark[:12]}", hint="orchestra learn train")
    metrics, test = prepared(own, asked)
    marked = rows_of(test)
    known = _known(own, asked, test, force=force)
    async with serving(open_, chosen) as orchestra:
        card = carded(orchestra, asked)
        arms = await answered(orchestra, card, test, asked, chosen.concurrency)
        report = evaluation.report(card.name, test, metrics, arms, asked.seed or 0)
        new, old = arms[-1], before(arms)
        if new.failed == len(new.cases):
            hint = f"{asked.agent} stays as it is, and this was no try"
            raise InputError("N306", f"{CANDIDATE} has failed on every row: {new.reason}", hint=hint)
        figures = [(arm.name, report.figures(arm.name)[metrics[0].name].value) for arm in (old, new)]

        def told(tries: int) -> tuple[Judgement, Promotion]:
            judgement = judged(metrics, old, new, asked.seed or 0, tries)
            return judgement, promotion(shelf, mark, _now(), judgement, figures, test, marked, known=known)

        judgement, made = told(shelf.tries(marked) + 1)
        if again := shelf.before(made, marked):
            judgement, made = told(again)
        if not (judgement.better or force):
            shelf.tried(msgspec.structs.replace(made, verb=TRY))
            return Promoted(report, judgement, False, f"{asked.agent} stays as it is; --force takes the candidate all the same.")
        calibrated = own.calibrated is not None
        shelf.take(asked.candidate, made)
        loaded = await _loaded(open_, chosen, asked.agent)
    said = f"{asked.agent} has {mark[:12]} now{loaded}. orchestra learn rollback {asked.agent}"
    if calibrated:
        said += f"\nIts calibration was made for the adapter before, and is void: orchestra learn calibrate {asked.agent}"
    if certificates.found(chosen, Project.load(chosen).registry, asked.agent) is not None:
        said += f"\nIts certificate was made for the adapter before, and is void: orchestra certify {asked.agent} --data FILE"
    return Promoted(report, judgement, True, said)


def _known(own: Card, asked: Comparison, test: Test, *, force: bool) -> tuple[str, ...]:
    """What is to be said of rows that the agent or its candidate was trained on: a few, those of the tune part where that is asked for, or
    whatever they are where it is forced. Raises `InputError` N205 for others."""
    assert asked.candidate is not None, "the verb demands one"
    each = ((own, ""), (evaluation.candidate(own, asked.candidate).varied(name=own.name), CANDIDATE))
    parts: tuple[LearntPart, ...] = ("train",) if asked.part == "tune" and asked.data.is_dir() else BOTH
    for card, who in () if force else each:
        refuse(known(card, test, asked.data, parts, who))
    said = tuple(one.said for card, who in each for one in known(card, test, asked.data, who=who))
    for one in said:
        note(one)
    return said


def before(arms: Sequence[Arm]) -> Arm:
    """What a candidate must beat: the agent as it is; what knows nothing, the first of the floors, where it was never trained.

    Raises `InputError` N305 where there is neither.
    """
    found = next((arm for arm in arms if arm.name == INCUMBENT), arms[0])
    if found.name == CANDIDATE:
        raise InputError("N305", "there is nothing that the candidate could be better than", hint="a data set has rows for floors")
    return found


async def rolled_back(open_: Opener, chosen: Settings, agent: str) -> Promotion:
    """Gives an agent back what it had, in the running fleet too."""
    async with open_(chosen, fleet="adopt") as orchestra:
        line = Shelf.of(learning(orchestra.registry.card(agent)), Folders.of().adapters).back(_now())
    await _loaded(open_, chosen, agent)
    return line


async def _loaded(open_: Opener, chosen: Settings, agent: str) -> str:
    """Has the servers that run load the agent's adapter, so that its first call does not wait for it; which those are, in words."""
    async with open_(chosen, fleet="adopt") as orchestra:
        names = await orchestra.load(agent)
    return f", loaded by {', '.join(names)}" if names else ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
