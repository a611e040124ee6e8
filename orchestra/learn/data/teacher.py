"""Answers from a teacher: another agent, or another model of the fleet with the agent's own prompt. Answers that pass
the checks are kept.

Sequence-level distillation: Kim and Rush 2016, *Sequence-Level Knowledge Distillation*
(https://arxiv.org/abs/1606.07947).
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
from orchestra.fleet.config import configured_fleet
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
"""Codes of errors that would repeat at the next call."""
WRONG_TYPE = "the teacher's answer is of another type"


class LabelledRunStarter(RunStarter, Protocol):
    """Starts runs on data with a confidentiality label: an `Orchestra`."""

    def options(self, *, label: Label | None = None) -> RunStarter:
        """Returns the same starter with another label for its runs."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """The source of answers."""

    name: str
    description: str
    """`the agent NAME`, or `the model NAME with the prompt of AGENT`."""
    digest: str
    """Digest of its card, or of the agent's card with the other model."""
    step: Step[..., Any]


def find_teacher(registry: Registry, settings: Settings, card: Card, name: str) -> Teacher:
    """Finds a teacher by name: an agent of the project, else a model of the fleet file. An agent's answers must pass
    its own checks and those of the student.

    Raises:
        InputError: N009 if the agent has other inputs or outputs; N013 if the name is unknown; N305 if the agent is not
        trained yet.
    """
    agents = registry.agents
    if (contract := agents.get(name)) is not None:
        _check_same_contract(card, contract)
        own_card = registry.cards.get(name)
        if own_card is None:
            return Teacher(name, f"the agent {name}", contract.with_digest().digest, Agent.from_contract(contract))
        if not own_card.is_trained:
            raise InputError(
                "N305",
                f"{name} is not trained yet, and cannot be a teacher",
                hint=f"orchestra learn train {name} --data DATA",
            )
        checks = tuple(dict.fromkeys((*own_card.checks, *card.checks)))
        teacher_card = (
            own_card if checks == own_card.checks else own_card.with_settings(name=f"{name}_teaching", checks=checks)
        )
        return Teacher(name, f"the agent {name}", own_card.digest, Agent.from_card(teacher_card))
    models = configured_fleet(settings).models
    if name not in models:
        names = sorted({*agents, *models})
        near = closest_match(name, names)
        hint = f"did you mean {near!r}?" if near else f"models of {settings.fleet}: {', '.join(models)}"
        raise InputError("N013", f"{name!r} is neither an agent nor a model of the fleet {settings.fleet}", hint=hint)
    if card.kind != "model":
        hint = "name an agent with the same inputs and outputs"
        raise InputError(
            "N009",
            f"{card.name} is of kind {card.kind}, and has no prompt for the model {name}",
            hint=hint,
        )
    teacher_card = card.with_settings(name=f"{card.name}_teaching", model=name, adapter=None, untuned=None)
    return Teacher(
        name, f"the model {name} with the prompt of {card.name}", teacher_card.digest, Agent.from_card(teacher_card)
    )


def _check_same_contract(card: Card, teacher: Contract) -> None:
    outputs = (
        card.output_form.schema
        if strip_annotations(teacher.output) == strip_annotations(card.output_form.schema)
        else card.output_schema
    )  # computed fields are left out too
    for side, own_schema, teacher_schema in (
        ("inputs", card.input_schema, teacher.input),
        ("output", outputs, teacher.output),
    ):
        if strip_annotations(own_schema) != strip_annotations(teacher_schema):
            reason = (
                f"{teacher.name} has other {side} than {card.name}: {format_type(teacher_schema, full=True)}, "
                f"and {card.name} {format_type(own_schema, full=True)}"
            )
            alternative = ", or a model of the fleet" if card.kind == "model" else ""
            raise InputError("N009", reason, hint=f"name an agent with the same inputs and outputs{alternative}")


def _unreachable_error(teacher: Teacher, first: Result[Any]) -> FleetError | None:
    """Returns the error if the first call did not reach the teacher; else None."""
    outcome = first.outcome
    if isinstance(outcome, FailedOutcome) and outcome.code in UNREACHABLE_CODES:
        return FleetError(
            outcome.code, f"the teacher {teacher.name} cannot be called: {outcome.reason}", hint=outcome.hint
        )
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
    """Returns the rows that the teacher answered, and the number of unanswered ones by reason. The first input is sent
    alone, so an unreachable teacher costs one call.

    Raises:
        FleetError: The teacher cannot be reached; with the code of the fleet.
        InputError: N014 if no answer was accepted.
    """
    by_label: dict[Label, list[DatasetRow]] = defaultdict(list)
    for unanswered_row in unanswered:
        by_label[unanswered_row.label].append(unanswered_row.row)
    outputs, rows, left_out, reasons = (
        Validator(card.output_form.schema),
        list[DatasetRow](),
        Counter[str](),
        list[str](),
    )
    for label, label_rows in by_label.items():
        view = runs.options(label=label)
        results = await run_all(view, teacher.step, [label_rows[0].input], 1, on_run_end)
        if (error := _unreachable_error(teacher, results[0])) is not None:
            if error.code != LABEL_NOT_ALLOWED or len(by_label) == 1:
                raise error
            left_out[f"labelled {label}, which the teacher may not read"] += len(label_rows)
            reasons.append(error.message)
            continue
        results += await run_all(view, teacher.step, [row.input for row in label_rows[1:]], concurrency, on_run_end)
        for row, result in zip(label_rows, results, strict=True):
            output = card.output_form.select_written(result.value)
            if result.status == "done" and not outputs.check(output):
                rows.append(msgspec.structs.replace(row, output=output))
                continue
            left_out[
                WITHHELD
                if isinstance(result.outcome, AbstainedOutcome)
                else FAILED
                if result.status != "done"
                else WRONG_TYPE
            ] += 1
            reasons += [result.error.message] if result.error is not None else []
    if not rows:
        reason = f": {reasons[0]}" if reasons else ""
        raise InputError(
            "N014",
            f"{teacher.name} answered {len(unanswered)} inputs, and none was accepted{reason}",
            hint="orchestra runs list",
        )
    description = f"answers of {teacher.description} to {len(unanswered)} inputs"
    return CollectedRows(
        rows, [DatasetSource(teacher.name, licence, teacher.digest, description, len(rows))], (), left_out
    )
