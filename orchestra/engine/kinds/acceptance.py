"""Acceptance: a value becomes the node's value when its checks accept it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs

from orchestra.core.outcomes import Abstained, Outcome, Value
from orchestra.core.protocols import Source, sources
from orchestra.engine.proposals import Finish, Judge, Proposal
from orchestra.engine.state import Unit
from orchestra.workflows.program import Acceptance

if TYPE_CHECKING:
    from orchestra.verification.acceptance import Situation


def settle(unit: Unit, outcome: Outcome) -> Proposal:
    """The outcome of a unit, or the question to its checks where it has some."""
    acceptance = unit.node.acceptance
    if unit.spread or acceptance is None or not acceptance.checks or not isinstance(outcome, Value):
        return Finish(unit, outcome)
    if acceptance.whole:
        from orchestra.schema.content import says

        if not says(outcome.value):
            return Finish(unit, Abstained(under(acceptance, "it says nothing"), unit.path))
    return Judge(unit, unit.attempt, situation(unit, outcome))


def under(acceptance: Acceptance, why: str) -> str:
    """Why a value is withheld: under the certificate of a workflow, where that is it."""
    return f"under its certificate: {why}" if acceptance.whole and acceptance.certificate is not None else why


def situation(unit: Unit, outcome: Value) -> Situation:
    """What the checks of a unit are to judge."""
    from orchestra.verification.acceptance import Situation

    acceptance = unit.node.acceptance or Acceptance()
    found = Situation(
        value=outcome.value,
        schema=unit.node.output,
        evidence=evidence(unit) or sources(unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else []),
        checks=acceptance.checks,
        accept=acceptance.accept,
        confidence=sure(unit, outcome.value) if acceptance.whole else outcome.score,
        promise=_promise(unit, acceptance),
        combination=acceptance.combination,
    )
    if not acceptance.asking:
        return found
    inputs = unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs is not None else {}
    back_off = "back_off" in acceptance.otherwise
    return structs.replace(found, producer=unit.node.contract, inputs=inputs, judges=acceptance.judges, back_off=back_off)


def sure(unit: Unit, value: Any) -> float | None:
    """How sure a workflow's output is that is judged as a whole."""
    from orchestra.engine.kinds import confidence

    return confidence.sure(unit, value)


def _promise(unit: Unit, acceptance: Acceptance) -> str:
    """What the node's certificate promises of this value: of a first answer alone, for it was made on those."""
    certificate = acceptance.certificate
    own = unit.judged is None and not unit.tier and not (unit.reply is not None and unit.reply.gave)
    if unit.body is not None and unit.body.ended is not None and unit.body.ended.given:
        own = False
    return certificate.promise if certificate is not None and own else ""


def evidence(unit: Unit) -> tuple[Source, ...]:
    """The texts that a unit's output must rest on, as its `against` says."""
    acceptance = unit.node.acceptance
    if acceptance is None or acceptance.against is None:
        return ()
    return sources(acceptance.against.evaluate(unit.bindings))
