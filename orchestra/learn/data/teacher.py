"""Teaching: another agent, or another model of the fleet asked with the agent's own prompt, answers inputs; what checks accept is kept.

Sequence-level distillation: Kim and Rush 2016, *Sequence-Level Knowledge Distillation* (https://arxiv.org/abs/1606.07947).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.agents.registry import Registry
from orchestra.app.result import Result
from orchestra.core.error_codes import LABEL_NOT_ALLOWED
from orchestra.core.errors import FleetError, InputError
from orchestra.core.labels import Label
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome
from orchestra.core.settings import Settings
from orchestra.core.suggestions import closest_match
from orchestra.fleet import config as fleet
from orchestra.learn.data.collection import CollectedRows, UnansweredRow
from orchestra.learn.data.dataset import DatasetRow, DatasetSource
from orchestra.learn.run_agent import RunStarter, run_all
from orchestra.schema.json_schema import strip_annotations
from orchestra.schema.types import Validator, format_type
from orchestra.workflows.python.steps import Agent, Step

WITHHELD = "the teacher's answer was withheld"
FAILED = "the teacher failed"
UNREACHABLE_CODES = frozenset(
    {"F105", "F201", LABEL_NOT_ALLOWED, "F203", "F207", "F212", "F213", "F214", "F216", "F218", "F222", "F230", "F231"}
)
"""Codes of faults that the next call would meet as well."""
WRONG_TYPE = "the teacher's answer is of another type"


class LabelledRunStarter(RunStarter, Protocol):
    """What carries out runs on data of a label: an `Orchestra`."""

    def options(self, *, label: Label | None = None) -> RunStarter: ...


@dataclass(frozen=True, slots=True)
class Teacher:
    """Who answers."""

    name: str
    description: str
    """`the agent NAME`, or `the model NAME with the prompt of AGENT`."""
    digest: str
    """Of its card, or of the agent's as it is asked of the model."""
    step: Step[..., Any]


def find_teacher(registry: Registry, settings: Settings, card: Card, name: str) -> Teacher:
    """The teacher of a name: an agent of the project, else a model of the fleet file.

    An agent's answers are held to its own checks and to the student's. Raises `InputError` N009 for an agent with other inputs or
    outputs, N013 for a name that is neither, N305 for an agent that is not trained yet.
    """
    agents = registry.agents
    if (contract := agents.get(name)) is not None:
        _check_same_contract(card, contract)
        own = registry.cards.get(name)
        if own is None:
            return Teacher(name, f"the agent {name}", contract.with_digest().digest, Agent.from_contract(contract))
        if not own.is_trained:
            raise InputError("N305", f"{name} is not trained yet, and cannot teach", hint=f"orchestra learn train {name} --data DATA")
        checks = tuple(dict.fromkeys((*own.checks, *card.checks)))
        asked = own if checks == own.checks else own.with_settings(name=f"{name}_teaching", checks=checks)
        return Teacher(name, f"the agent {name}", own.digest, Agent.from_card(asked))
    models = fleet.read_config(settings.find_resource("configs", settings.fleet)).models
    if name not in models:
        known = sorted({*agents, *models})
        near = closest_match(name, known)
        hint = f"did you mean {near!r}?" if near else f"models of {settings.fleet}: {', '.join(models)}"
        raise InputError("N013", f"{name!r} is neither an agent nor a model of the fleet {settings.fleet}", hint=hint)
    if card.kind != "model":
        hint = "name an agent with the same inputs and outputs"
        raise InputError(
            "N009", f"{card.name} is of kind {card.kind}, and has no prompt that the model {name} could be asked with", hint=hint
        )
    asked = card.with_settings(name=f"{card.name}_teaching", model=name, adapter=None)
    return Teacher(name, f"the model {name} with the prompt of {card.name}", asked.digest, Agent.from_card(asked))


def _check_same_contract(card: Card, teacher: Contract) -> None:
    outputs = (
        card.output_form.schema if strip_annotations(teacher.output) == strip_annotations(card.output_form.schema) else card.output_schema
    )  # who fills nothing in, too
    for what, mine, theirs in (("inputs", card.input_schema, teacher.input), ("output", outputs, teacher.output)):
        if strip_annotations(mine) != strip_annotations(theirs):
            reason = f"{teacher.name} has other {what} than {card.name}: {format_type(theirs, full=True)}, and {card.name} {format_type(mine, full=True)}"
            more = ", or a model of the fleet" if card.kind == "model" else ""
            raise InputError("N009", reason, hint=f"name an agent with the same inputs and outputs{more}")


def _unreachable_error(teacher: Teacher, first: Result[Any]) -> FleetError | None:
    """Why a first call did not reach the teacher; None where it did."""
    outcome = first.outcome
    if isinstance(outcome, FailedOutcome) and outcome.code in UNREACHABLE_CODES:
        return FleetError(outcome.code, f"the teacher {teacher.name} cannot be asked: {outcome.reason}", hint=outcome.hint)
    return None


async def ask_teacher(
    runs: LabelledRunStarter,
    teacher: Teacher,
    card: Card,
    unanswered: Sequence[UnansweredRow],
    licence: str,
    concurrency: int,
    on_run_end: Callable[[], None],
) -> CollectedRows:
    """The rows that the teacher answered, and how many it did not, by reason.

    The first input is asked alone, so that a teacher who cannot be reached costs one call. Raises `FleetError` with the fleet's code
    where that is so, `InputError` N014 where no answer was accepted.
    """
    by_label: dict[Label, list[DatasetRow]] = defaultdict(list)
    for one in unanswered:
        by_label[one.label].append(one.row)
    outputs, rows, left_out, reasons = Validator(card.output_form.schema), list[DatasetRow](), Counter[str](), list[str]()
    for label, these in by_label.items():
        labelled = runs.options(label=label)
        said = await run_all(labelled, teacher.step, [these[0].input], 1, on_run_end)
        if (error := _unreachable_error(teacher, said[0])) is not None:
            if error.code != LABEL_NOT_ALLOWED or len(by_label) == 1:
                raise error
            left_out[f"labelled {label}, which the teacher may not see"] += len(these)
            reasons.append(error.message)
            continue
        said += await run_all(labelled, teacher.step, [row.input for row in these[1:]], concurrency, on_run_end)
        for row, result in zip(these, said, strict=True):
            written = card.output_form.select_written(result.value)
            if result.status == "done" and not outputs.check(written):
                rows.append(msgspec.structs.replace(row, output=written))
                continue
            left_out[WITHHELD if isinstance(result.outcome, AbstainedOutcome) else FAILED if result.status != "done" else WRONG_TYPE] += 1
            reasons += [result.error.message] if result.error is not None else []
    if not rows:
        why = f": {reasons[0]}" if reasons else ""
        raise InputError(
            "N014", f"{teacher.name} answered {len(unanswered)} inputs, and none was accepted{why}", hint="orchestra runs list"
        )
    made = f"answers of {teacher.description} to {len(unanswered)} inputs"
    return CollectedRows(rows, [DatasetSource(teacher.name, licence, teacher.digest, made, len(rows))], (), left_out)
