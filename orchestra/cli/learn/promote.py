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
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.learn.evaluate import ComparisonSpec, adapter_warnings, ask_arms, find_card, prepare
from orchestra.cli.output import print_note
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.adapter_checks import mismatch_error
from orchestra.learn.compatibility import check_trainable
from orchestra.learn.data.provenance import (
    TRAINING_SPLITS,
    TrainingSplit,
    find_training_overlap,
    refuse_training_overlap,
    row_set_of,
)
from orchestra.learn.evaluation import evaluation
from orchestra.learn.evaluation.evaluation import CANDIDATE, INCUMBENT, Arm, EvaluationReport
from orchestra.learn.evaluation.rows import EvaluationSet
from orchestra.learn.promotion.candidates import check_candidate
from orchestra.learn.promotion.promotion import (
    TRY,
    AdapterStore,
    CandidateComparison,
    PromotionRecord,
    compare_candidate,
    promotion_record,
    significance_level,
)


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """What came of a candidate."""

    report: EvaluationReport
    judgement: CandidateComparison
    promoted: bool
    message: str

    def as_data(self) -> dict[str, Any]:
        """As plain JSON."""
        differences = {
            name: {"value": one.value, "low": one.low, "high": one.high, "chance": one.p_value}
            for name, one in self.judgement.differences
        }
        judged = {
            "better": self.judgement.is_better,
            "tries": self.judgement.tries,
            "level": significance_level(self.judgement.tries),
        }
        return {**self.report.as_data(), **judged, "promoted": self.promoted, "differences": differences}


async def run_promotion(open_: Opener, settings: Settings, spec: ComparisonSpec, *, force: bool) -> PromotionResult:
    """Judges a candidate, and takes it where it is better or where it is forced."""
    assert spec.candidate is not None, "the verb demands one"
    own = check_trainable(Project.load(settings).registry.card(spec.agent))
    mark, shelf = check_candidate(own, spec.candidate), AdapterStore.for_agent(own, Folders.from_environment().adapters)
    for other in adapter_warnings(settings, own, spec.candidate):
        if not force:
            raise mismatch_error(spec.candidate, other, "--force takes it all the same, where that is meant")
        print_note(f"the candidate: {other}")
    if mark == shelf.current_digest:
        raise InputError("N304", f"{spec.agent} has this already: {mark[:12]}", hint="orchestra learn train")
    metrics, test = prepare(own, spec)
    marked = row_set_of(test)
    known = _training_overlap(own, spec, test, force=force)
    async with open_orchestra(open_, settings) as orchestra:
        card = find_card(orchestra, spec)
        arms = await ask_arms(orchestra, card, test, spec, settings.concurrency)
        report = evaluation.build_report(card.name, test, metrics, arms, spec.seed or 0)
        new, old = arms[-1], current_arm(arms)
        if new.failed == len(new.cases):
            hint = f"{spec.agent} stays as it is, and this was no try"
            raise InputError("N306", f"{CANDIDATE} has failed on every row: {new.reason}", hint=hint)
        figures = [(arm.name, report.estimates(arm.name)[metrics[0].name].value) for arm in (old, new)]

        def told(tries: int) -> tuple[CandidateComparison, PromotionRecord]:
            judgement = compare_candidate(metrics, old, new, spec.seed or 0, tries)
            return judgement, promotion_record(
                shelf, mark, _timestamp(), judgement, figures, test, marked, training_overlap=known
            )

        judgement, made = told(shelf.count_candidates(marked) + 1)
        if again := shelf.earlier_number(made, marked):
            judgement, made = told(again)
        if not (judgement.is_better or force):
            shelf.record_try(msgspec.structs.replace(made, verb=TRY))
            return PromotionResult(
                report, judgement, False, f"{spec.agent} stays as it is; --force takes the candidate all the same."
            )
        calibrated = own.current_calibration is not None
        shelf.promote(spec.candidate, made)
        loaded = await _reload_servers(open_, settings, spec.agent)
    said = f"{spec.agent} has {mark[:12]} now{loaded}. orchestra learn rollback {spec.agent}"
    if calibrated:
        said += (
            f"\nIts calibration was made for the adapter before, and is void: orchestra learn calibrate {spec.agent}"
        )
    if certificates.find_certificate(settings, Project.load(settings).registry, spec.agent) is not None:
        said += f"\nIts certificate was made for the adapter before, and is void: orchestra certify {spec.agent} --data FILE"
    return PromotionResult(report, judgement, True, said)


def _training_overlap(own_card: Card, spec: ComparisonSpec, test: EvaluationSet, *, force: bool) -> tuple[str, ...]:
    """What is to be said of rows that the agent or its candidate was trained on: a few, those of the tune part where that is asked for, or
    whatever they are where it is forced. Raises `InputError` N205 for others."""
    assert spec.candidate is not None, "the verb demands one"
    each = (
        (own_card, ""),
        (evaluation.candidate_card(own_card, spec.candidate).with_settings(name=own_card.name), CANDIDATE),
    )
    parts: tuple[TrainingSplit, ...] = ("train",) if spec.part == "tune" and spec.data.is_dir() else TRAINING_SPLITS
    for card, who in () if force else each:
        refuse_training_overlap(find_training_overlap(card, test, spec.data, parts, who))
    said = tuple(
        one.message for card, who in each for one in find_training_overlap(card, test, spec.data, display_name=who)
    )
    for one in said:
        print_note(one)
    return said


def current_arm(arms: Sequence[Arm]) -> Arm:
    """What a candidate must beat: the agent as it is; what knows nothing, the first of the floors, where it was never trained.

    Raises `InputError` N305 where there is neither.
    """
    found = next((arm for arm in arms if arm.name == INCUMBENT), arms[0])
    if found.name == CANDIDATE:
        raise InputError(
            "N305", "there is nothing that the candidate could be better than", hint="a data set has rows for floors"
        )
    return found


async def run_rollback(open_: Opener, settings: Settings, agent: str) -> PromotionRecord:
    """Gives an agent back what it had, in the running fleet too."""
    async with open_(settings, fleet="adopt") as orchestra:
        line = AdapterStore.for_agent(
            check_trainable(orchestra.registry.card(agent)), Folders.from_environment().adapters
        ).roll_back(_timestamp())
    await _reload_servers(open_, settings, agent)
    return line


async def _reload_servers(open_: Opener, settings: Settings, agent: str) -> str:
    """Has the servers that run load the agent's adapter, so that its first call does not wait for it; which those are, in words."""
    async with open_(settings, fleet="adopt") as orchestra:
        names = await orchestra.load(agent)
    return f", loaded by {', '.join(names)}" if names else ""


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
