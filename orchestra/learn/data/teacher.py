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
from orchestra.core.error_codes import NOT_CLEARED
from orchestra.core.errors import FleetError, InputError
from orchestra.core.labels import Label
from orchestra.core.outcomes import Abstained, Failed
from orchestra.core.settings import Settings
from orchestra.core.suggestions import nearest
from orchestra.fleet import config as fleet
from orchestra.learn.data.collection import Gathered, Open
from orchestra.learn.data.dataset import Origin, Row
from orchestra.learn.run_agent import Runs, results
from orchestra.schema.json_schema import bare
from orchestra.schema.types import Validator, show
from orchestra.workflows.python.steps import Agent, Step

WITHHELD = "the teacher's answer was withheld"
FAILED = "the teacher failed"
UNREACHED = frozenset({"F105", "F201", NOT_CLEARED, "F203", "F207", "F212", "F213", "F214", "F216", "F218", "F222", "F230", "F231"})
"""Codes of faults that the next call would meet as well."""
OTHER_TYPE = "the teacher's answer is of another type"


class Labelled(Runs, Protocol):
    """What carries out runs on data of a label: an `Orchestra`."""

    def options(self, *, label: Label | None = None) -> Runs: ...


@dataclass(frozen=True, slots=True)
class Teacher:
    """Who answers."""

    name: str
    what: str
    """`the agent NAME`, or `the model NAME with the prompt of AGENT`."""
    digest: str
    """Of its card, or of the agent's as it is asked of the model."""
    step: Step[..., Any]


def teacher_of(registry: Registry, settings: Settings, card: Card, name: str) -> Teacher:
    """The teacher of a name: an agent of the project, else a model of the fleet file.

    An agent's answers are held to its own checks and to the student's. Raises `InputError` N009 for an agent with other inputs or
    outputs, N013 for a name that is neither, N305 for an agent that is not trained yet.
    """
    agents = registry.agents
    if (contract := agents.get(name)) is not None:
        _same(card, contract)
        own = registry.cards.get(name)
        if own is None:
            return Teacher(name, f"the agent {name}", contract.sealed().digest, Agent.of(contract))
        if not own.trained:
            raise InputError("N305", f"{name} is not trained yet, and cannot teach", hint=f"orchestra learn train {name} --data DATA")
        checks = tuple(dict.fromkeys((*own.checks, *card.checks)))
        asked = own if checks == own.checks else own.varied(name=f"{name}_teaching", checks=checks)
        return Teacher(name, f"the agent {name}", own.digest, Agent.carded(asked))
    models = fleet.read(settings.find_resource("configs", settings.fleet)).models
    if name not in models:
        known = sorted({*agents, *models})
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"models of {settings.fleet}: {', '.join(models)}"
        raise InputError("N013", f"{name!r} is neither an agent nor a model of the fleet {settings.fleet}", hint=hint)
    if card.kind != "model":
        hint = "name an agent with the same inputs and outputs"
        raise InputError(
            "N009", f"{card.name} is of kind {card.kind}, and has no prompt that the model {name} could be asked with", hint=hint
        )
    asked = card.varied(name=f"{card.name}_teaching", model=name, adapter=None)
    return Teacher(name, f"the model {name} with the prompt of {card.name}", asked.digest, Agent.carded(asked))


def _same(card: Card, teacher: Contract) -> None:
    outputs = card.form.schema if bare(teacher.output) == bare(card.form.schema) else card.output_schema  # who fills nothing in, too
    for what, mine, theirs in (("inputs", card.input_schema, teacher.input), ("output", outputs, teacher.output)):
        if bare(mine) != bare(theirs):
            reason = f"{teacher.name} has other {what} than {card.name}: {show(theirs, full=True)}, and {card.name} {show(mine, full=True)}"
            more = ", or a model of the fleet" if card.kind == "model" else ""
            raise InputError("N009", reason, hint=f"name an agent with the same inputs and outputs{more}")


def _unreached(teacher: Teacher, first: Result[Any]) -> FleetError | None:
    """Why a first call did not reach the teacher; None where it did."""
    outcome = first.outcome
    if isinstance(outcome, Failed) and outcome.code in UNREACHED:
        return FleetError(outcome.code, f"the teacher {teacher.name} cannot be asked: {outcome.reason}", hint=outcome.hint)
    return None


async def taught(
    runs: Labelled, teacher: Teacher, card: Card, asked: Sequence[Open], licence: str, at_once: int, tell: Callable[[], None]
) -> Gathered:
    """The rows that the teacher answered, and how many it did not, by reason.

    The first input is asked alone, so that a teacher who cannot be reached costs one call. Raises `FleetError` with the fleet's code
    where that is so, `InputError` N014 where no answer was accepted.
    """
    by_label: dict[Label, list[Row]] = defaultdict(list)
    for one in asked:
        by_label[one.label].append(one.row)
    outputs, rows, left_out, reasons = Validator(card.form.schema), list[Row](), Counter[str](), list[str]()
    for label, these in by_label.items():
        labelled = runs.options(label=label)
        said = await results(labelled, teacher.step, [these[0].input], 1, tell)
        if (error := _unreached(teacher, said[0])) is not None:
            if error.code != NOT_CLEARED or len(by_label) == 1:
                raise error
            left_out[f"labelled {label}, which the teacher may not see"] += len(these)
            reasons.append(error.message)
            continue
        said += await results(labelled, teacher.step, [row.input for row in these[1:]], at_once, tell)
        for row, result in zip(these, said, strict=True):
            written = card.form.left(result.value)
            if result.status == "done" and not outputs.check(written):
                rows.append(msgspec.structs.replace(row, output=written))
                continue
            left_out[WITHHELD if isinstance(result.outcome, Abstained) else FAILED if result.status != "done" else OTHER_TYPE] += 1
            reasons += [result.error.message] if result.error is not None else []
    if not rows:
        why = f": {reasons[0]}" if reasons else ""
        raise InputError("N014", f"{teacher.name} answered {len(asked)} inputs, and none was accepted{why}", hint="orchestra runs list")
    made = f"answers of {teacher.what} to {len(asked)} inputs"
    return Gathered(rows, [Origin(teacher.name, licence, teacher.digest, made, len(rows))], (), left_out)
