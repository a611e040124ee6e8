"""Judging: an answer from elsewhere, before its checks: what it is held against, who is asked, and how their scores become one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestra.agents.contract import Contract
from orchestra.agents.tools import ToolFault
from orchestra.app import certificates
from orchestra.app.inputs import jsonable
from orchestra.app.project import Project
from orchestra.app.result import Result
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Question, Verdict
from orchestra.core.labels import WITHIN, Label
from orchestra.core.protocols import Clock, sources
from orchestra.core.settings import looks_like_path
from orchestra.schema.strict_json import unkept
from orchestra.schema.types import Validator, schema_of
from orchestra.verification.acceptance import CONFIDENCE, Ruling, Situation, heavy, names_of, rules_of
from orchestra.verification.certificates.combination import Combination
from orchestra.verification.certificates.file import Certificate
from orchestra.verification.check_expression import AGREE, named
from orchestra.verification.custom_checks import TOOL, asked
from orchestra.verification.entailment import Reply
from orchestra.verification.model_checks import ASKING
from orchestra.verification.rederivation import REDERIVE
from orchestra.verification.session import Asked, stated
from orchestra.verification.standalone import ACCEPT, type_of
from orchestra.verification.verdict import UNKNOWN
from orchestra.workflows.python.acceptance import Check, Checks, check_of
from orchestra.workflows.python.steps import Step, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, and what is known of how it came about."""

    value: Any
    against: Any
    """The evidence: whatever has texts in it."""
    inputs: Mapping[str, Any]
    """What it was made from."""
    confidence: float | None = None
    """How sure its producer was of it, in [0, 1]."""


async def aside(clock: Clock, said: Callable[..., Asked | Ruling], situation: Situation, *more: Any) -> Asked | Ruling:
    """What checks say of a situation: beside the loop where they read a great deal, and else at once."""
    return await clock.work(partial(said, situation, *more)) if heavy(situation) else said(situation, *more)


def situation(
    project: Project,
    answer: Answer,
    checks: Checks | str | Iterable[Checks | str] | None,
    accept: float | None,
    *,
    combined: str | Path,
    back_off: bool,
) -> tuple[Situation, Mapping[str, Step[..., Any]]]:
    """The situation of an answer, as `Orchestra.check` is told of it, and the agents that its checks name by themselves.

    Raises `InputError` V014 for an `accept` or a confidence that is not in [0, 1], V036 for an empty list of checks, and what `alone` and
    `weighed` raise.
    """
    names, own = _named(project, checks)
    for name, number in (("accept", accept), ("confidence", answer.confidence)):
        if number is not None and not 0 <= number <= 1:
            raise InputError("V014", f"{name}={number:g} is not in [0, 1]", hint=f"{name}=0.8")
    if combined:
        return weighed(project, answer, combined, names, accept, back_off=back_off), own
    if names is not None and not names:
        said = "no check is stated, and nothing would be held against the answer"
        raise InputError("V036", said, hint='checks="quote", or leave `checks` out')
    return alone(project, answer, ("quote",) if names is None else names, accept, back_off=back_off), own


def _named(
    project: Project, checks: Checks | str | Iterable[Checks | str] | None
) -> tuple[tuple[str, ...] | None, dict[str, Step[..., Any]]]:
    """Checks as they are written, and the agents that they name by themselves; these, and tools, become known to the project. None where no
    checks are stated."""
    found, own = list[str](), dict[str, Step[..., Any]]()
    one: object
    for one in () if checks is None else [checks] if not isinstance(checks, Iterable) or isinstance(checks, str) else checks:
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, Check | Tool):
            check = check_of(one)
            for step in check.steps:
                project.judge(step)
            own |= {step.name: step for step in check.steps if not isinstance(step, Tool)}
            found += check.names
        else:
            hint = "@tool(effect='pure') makes one of a function" if callable(one) else 'checks="quote | entailment"'
            raise InputError("V010", f"checks={one!r} are no checks", hint=hint)
    return None if checks is None else tuple(found), own


async def told(project: Project, tool: str, inputs: Mapping[str, Any], label: Label) -> Reply:
    """What a tool says to a check's question about data of a label, asked in this process."""
    within = WITHIN.set(label)
    try:
        return Reply(await project.registry.tools[tool].call(inputs, label))
    except ToolFault as fault:
        return Reply(fault=f"{fault.code} {fault.reason}")
    finally:
        WITHIN.reset(within)


async def heard(
    run: Callable[..., Awaitable[Result[Any]]], project: Project, question: Question, own: Mapping[str, Step[..., Any]], label: Label
) -> Reply:
    """What an agent, of a check's `own` or of the project, or a tool says to its question; a failure, or a late answer, is none."""
    from orchestra.engine.kinds.checks import PATIENCE

    try:
        async with asyncio.timeout(PATIENCE):
            if tool := asked(question.agent):
                return await told(project, tool, question.inputs, label)
            result = await run(project.asked(question.agent, own), **question.inputs)
            return Reply(jsonable(result.output))
    except TimeoutError:
        return Reply(fault=f"E006 no answer within {PATIENCE:g} s")
    except OrchestraError as error:
        return Reply(fault=f"{error.code} {error.message}")


def alone(project: Project, answer: Answer, checks: tuple[str, ...], accept: float | None, *, back_off: bool) -> Situation:
    """The situation of an answer of which nobody says who made it: the lowest score of its checks counts.

    Raises `InputError` E013 for an answer that is no JSON, V010 for what is no check, V011 for an agent that is not there.
    """
    known = project.catalog()
    names, judges = stated(checks, known.agents, known.tools)
    untyped = isinstance(answer.value, str | dict | list)
    return Situation(
        value=_kept(answer.value),
        schema=type_of(answer.value, names_of(names)) if untyped else schema_of(type(answer.value), "serialization"),
        evidence=sources(jsonable(answer.against)),
        checks=names,
        accept=ACCEPT if accept is None else accept,
        confidence=answer.confidence,
        inputs=jsonable(dict(answer.inputs)),
        judges=judges,
        back_off=back_off,
    )


def weighed(
    project: Project, answer: Answer, which: str | Path, checks: tuple[str, ...] | None, accept: float | None, *, back_off: bool = False
) -> Situation:
    """The situation of an answer of an agent whose combination makes one score of what its checks say.

    `which` is the agent, or the file of a combination; `checks` are None, or those of the combination. Without `accept` a certificate over
    the combined score says from where on it is accepted, and 0.5 where there is none.

    Raises `InputError` A001 for an agent that is not there, L076 for one without a combination, and for `back_off`; V002 to V008 for a
    combination or a certificate that does not hold, V012 where a check wants to know more than is given, E013 and V013 for an answer that
    is no JSON, or none of this agent.
    """
    if back_off:
        said = "`back_off` keeps parts by what `entailment` says of each, and a combination is about whole values"
        raise InputError("L076", said, hint="leave one of them out")
    combination = _combination(project, which)
    card = project.registry.card(combination.agent)
    if checks is not None and frozenset(map(str, rules_of(checks))) != frozenset(combination.checks):
        said = f"the combination of {card.name!r} is of the checks {', '.join(combination.checks)}, and not of {', '.join(checks)}"
        raise InputError("V005", said, hint="leave the checks out: they are those of the combination")
    value = _kept(answer.value)
    if (fault := Validator(card.output_schema).check(value)) is not None:
        raise InputError("V013", f"this is no answer of {card.name!r}: {fault}", hint=f"orchestra agents show {card.name}")
    own = not _is_file(which)
    certificate = _certificate(project, combination, own=own) if accept is None else None
    if accept is None:
        accept = certificate.threshold if certificate is not None else ACCEPT
    known = project.catalog()
    names, judges = stated(combination.checks, known.agents, known.tools)
    situation = Situation(
        value=value,
        schema=card.output_schema,
        evidence=sources(jsonable(answer.against)),
        checks=names,
        accept=accept,
        confidence=answer.confidence,
        promise=certificate.promise if certificate is not None else "",
        producer=project.contract(card),
        inputs=jsonable(dict(answer.inputs)),
        judges=judges,
        combination=combination,
    )
    if missing := dict(_missing(situation, card.contract)):
        said = f"the combination of {card.name!r} weighs what nobody can tell of this answer: {', '.join(missing)}"
        raise InputError("V012", said, hint="; ".join(dict.fromkeys(missing.values())))
    return situation


def _kept(value: Any) -> Any:
    """An answer as JSON. Raises `InputError` E013 for NaN, infinities and whatever else a journal would not read back the same."""
    plain = jsonable(value)
    if fault := unkept(plain):
        raise InputError("E013", f"the answer: {fault}", hint="pass finite numbers, valid texts and flat values")
    return plain


def _is_file(which: str | Path) -> bool:
    return isinstance(which, Path) or looks_like_path(which) or which.endswith(".json")


def _combination(project: Project, which: str | Path) -> Combination:
    if _is_file(which):
        return certificates.combination(project.settings, project.registry, Path(which))
    agent = project.registry.card(str(which)).name
    found: Combination | None = project.catalog().combinations.get(agent)
    if found is None:
        raise InputError("L076", f"there is no combination of checks for {agent!r}", hint=f"orchestra learn combine {agent} --data FILE")
    return found


def _certificate(project: Project, combination: Combination, *, own: bool) -> Certificate | None:
    """What is promised of the combined score; None where the agent's certificate is about another one. One that was about the agent's
    own combination, and is out of date, is not passed over. Raises `InputError` V002 to V008."""
    agent = combination.agent
    path = certificates.found(project.settings, project.registry, agent)
    about = certificates.read(path, agent).combination if path is not None else ""
    if not about:
        return None
    if about == combination.digest:
        found: Certificate = project.catalog().certificates[agent]
        return found
    if own:
        said = f"the certificate of {agent!r} is about a combination of checks that is not the one of today"
        raise InputError("V005", said, hint=f"orchestra certify {agent} --data FILE --combined, or say from which score on: accept=0.8")
    return None


def _missing(situation: Situation, producer: Contract) -> Iterator[tuple[str, str]]:
    """The checks that want to know more than is given, each with how that is said."""
    lacking = [name for name in producer.input.get("required", ()) if name not in situation.inputs]
    asked = "what the agent was asked: inputs={...}, or --input KEY=VALUE"
    for check in (one for rule in rules_of(situation.checks) for one in named(rule)):
        if check.check == CONFIDENCE and situation.confidence is None:
            yield str(check), "how sure the agent was of it: confidence=0.9, or --confidence 0.9"
        elif check.check == AGREE and lacking:
            yield str(check), asked
        elif check.check in (REDERIVE, TOOL):
            said = ASKING[check.check].questions(check, situation)
            if isinstance(said, Verdict) and said.outcome == UNKNOWN:
                yield str(check), asked
