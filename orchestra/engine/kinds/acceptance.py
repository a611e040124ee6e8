"""Acceptance: a value becomes the node's value when its checks accept it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from orchestra.doors import Source, sources
from orchestra.engine.proposals import Finish, Judge, Proposal
from orchestra.engine.state import Unit
from orchestra.values.outcome import Outcome, Value
from orchestra.workflow.program import Acceptance

if TYPE_CHECKING:
    from orchestra.verify.acceptance import Situation


def settle(unit: Unit, outcome: Outcome) -> Proposal:
    """The outcome of a unit, or the question to its checks where it has some."""
    acceptance = unit.node.acceptance
    if unit.spread or acceptance is None or not acceptance.checks or not isinstance(outcome, Value):
        return Finish(unit, outcome)
    return Judge(unit, unit.attempt, situation(unit, outcome))


def situation(unit: Unit, outcome: Value) -> Situation:
    """What the checks of a unit are to judge."""
    from orchestra.verify.acceptance import Situation

    acceptance = unit.node.acceptance or Acceptance()
    found = Situation(
        value=outcome.value,
        schema=unit.node.output,
        evidence=evidence(unit) or sources(unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else []),
        checks=acceptance.checks,
        accept=acceptance.accept,
        confidence=outcome.score,
        promise=_promise(unit, acceptance),
        combination=acceptance.combination,
    )
    if not acceptance.asking:
        return found
    inputs = unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs is not None else {}
    back_off = "back_off" in acceptance.otherwise
    return structs.replace(found, producer=unit.node.contract, inputs=inputs, judges=acceptance.judges, back_off=back_off)


def _promise(unit: Unit, acceptance: Acceptance) -> str:
    """What the node's certificate promises of this value: of a first answer alone, for it was made on those."""
    certificate = acceptance.certificate
    own = unit.judged is None and not unit.tier and not (unit.reply is not None and unit.reply.gave)
    return certificate.promise if certificate is not None and own else ""


def evidence(unit: Unit) -> tuple[Source, ...]:
    """The texts that a unit's output must rest on, as its `against` says."""
    acceptance = unit.node.acceptance
    if acceptance is None or acceptance.against is None:
        return ()
    return sources(acceptance.against.evaluate(unit.bindings))
