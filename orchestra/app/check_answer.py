"""Checks of an answer without a run: its evidence, its judges, and how their scores are combined."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestra.agents.contract import Contract
from orchestra.agents.tools import ToolError
from orchestra.app import certificates
from orchestra.app.inputs import to_jsonable
from orchestra.app.project import Project
from orchestra.app.result import Result
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import CheckQuestion, Verdict
from orchestra.core.labels import CURRENT_LABEL, Label
from orchestra.core.protocols import Clock, collect_sources
from orchestra.core.settings import looks_like_path
from orchestra.schema.strict_json import storage_error
from orchestra.schema.types import Validator, schema_of
from orchestra.verification.acceptance import (
    CONFIDENCE,
    VerificationRequest,
    VerificationResult,
    check_names,
    is_heavy,
    parse_checks,
)
from orchestra.verification.certificates.combination import Combination
from orchestra.verification.certificates.file import Certificate
from orchestra.verification.check_expression import AGREE, check_calls
from orchestra.verification.custom_checks import TOOL, tool_name
from orchestra.verification.entailment import JudgeReply
from orchestra.verification.model_checks import MODEL_CHECKS
from orchestra.verification.rederivation import REDERIVE
from orchestra.verification.session import ChecksPending, advance, start, validate_checks
from orchestra.verification.standalone import DEFAULT_THRESHOLD, infer_schema
from orchestra.verification.verdict import UNKNOWN
from orchestra.workflows.python.checks import Check, Checks
from orchestra.workflows.python.steps import Step, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedAnswer:
    """An answer with its context."""

    value: Any
    against: Any
    """The evidence: any value with texts in it."""
    inputs: Mapping[str, Any]
    """The inputs from which it was made."""
    confidence: float | None = None
    """The confidence of its producer, in [0, 1]."""


async def run_off_loop(
    clock: Clock,
    evaluate: Callable[..., ChecksPending | VerificationResult],
    situation: VerificationRequest,
    *more: Any,
) -> ChecksPending | VerificationResult:
    """Runs checks: in a thread if they read a lot, else at once."""
    return (
        await clock.run_in_thread(partial(evaluate, situation, *more))
        if is_heavy(situation)
        else evaluate(situation, *more)
    )


async def run_checks(
    clock: Clock,
    project: Project,
    request: VerificationRequest,
    own: Mapping[str, Step[..., Any]],
    label: Label,
    run: Callable[[int | None], Callable[..., Awaitable[Result[Any]]]],
) -> VerificationResult:
    """Runs checks to their end. `run` returns what runs a step for a sample of a question."""
    result = await run_off_loop(clock, start, request)
    while isinstance(result, ChecksPending):
        judge_calls = [
            ask_judge(run(question.sample or None), project, question, own, label) for question in result.questions
        ]
        result = await run_off_loop(clock, advance, request, result, await asyncio.gather(*judge_calls))
    return result


def verification_request(
    project: Project,
    answer: CheckedAnswer,
    checks: Checks | str | Iterable[Checks | str] | None,
    accept: float | None,
    *,
    combined: str | Path,
    back_off: bool,
) -> tuple[VerificationRequest, Mapping[str, Step[..., Any]]]:
    """Returns the verification request of an answer for `Orchestra.check`, and the agents that its checks define
    themselves.

    Raises `InputError` V014 for an `accept` or a confidence outside of [0, 1], V036 for an empty list of checks, and
    the errors of `plain_request` and `combined_request`.
    """
    names, own_steps = _check_names(project, checks)
    for name, number in (("accept", accept), ("confidence", answer.confidence)):
        if number is not None and not 0 <= number <= 1:
            raise InputError("V014", f"{name}={number:g} is not in [0, 1]", hint=f"{name}=0.8")
    if combined:
        return combined_request(project, answer, combined, names, accept, back_off=back_off), own_steps
    if names is not None and not names:
        message = "no check is stated, and nothing would be held against the answer"
        raise InputError("V036", message, hint='checks="quote", or leave `checks` out')
    return plain_request(project, answer, ("quote",) if names is None else names, accept, back_off=back_off), own_steps


def _check_names(
    project: Project, checks: Checks | str | Iterable[Checks | str] | None
) -> tuple[tuple[str, ...] | None, dict[str, Step[..., Any]]]:
    """Returns checks as text, and the agents that they define; registers these and their tools with the project. None
    if no checks are stated.
    """
    named_checks, own_steps = list[str](), dict[str, Step[..., Any]]()
    candidate: object
    for candidate in (
        () if checks is None else [checks] if not isinstance(checks, Iterable) or isinstance(checks, str) else checks
    ):
        if isinstance(candidate, str):
            named_checks.append(candidate)
        elif isinstance(candidate, Check | Tool):
            check = candidate.as_check()
            for step in check.steps:
                project.register_by_name(step)
            own_steps |= {step.name: step for step in check.steps if not isinstance(step, Tool)}
            named_checks += check.names
        else:
            hint = (
                "@tool(effect='pure') makes one of a function" if callable(candidate) else 'checks="quote | entailment"'
            )
            raise InputError("V010", f"checks={candidate!r} are no checks", hint=hint)
    return None if checks is None else tuple(named_checks), own_steps


async def ask_tool(project: Project, tool: str, inputs: Mapping[str, Any], label: Label) -> JudgeReply:
    """Returns a tool's reply to a question of a check about data with a label; called in this process."""
    within = CURRENT_LABEL.set(label)
    try:
        return JudgeReply(await project.registry.tools[tool].call(inputs, label))
    except ToolError as fault:
        return JudgeReply(error=f"{fault.code} {fault.reason}")
    finally:
        CURRENT_LABEL.reset(within)


async def ask_judge(
    run: Callable[..., Awaitable[Result[Any]]],
    project: Project,
    question: CheckQuestion,
    own: Mapping[str, Step[..., Any]],
    label: Label,
) -> JudgeReply:
    """Returns the reply of an agent, of the check's `own` or of the project, or of a tool; none after a failure or a
    timeout.
    """
    from orchestra.engine.kinds.checks import QUESTION_TIMEOUT

    try:
        async with asyncio.timeout(QUESTION_TIMEOUT):
            if tool := tool_name(question.agent):
                return await ask_tool(project, tool, question.inputs, label)
            result = await run(project.judge_step(question.agent, own), **question.inputs)
            return JudgeReply(to_jsonable(result.output))
    except TimeoutError:
        return JudgeReply(error=f"E006 no answer within {QUESTION_TIMEOUT:g} s")
    except OrchestraError as error:
        return JudgeReply(error=f"{error.code} {error.message}")


def plain_request(
    project: Project, answer: CheckedAnswer, checks: tuple[str, ...], accept: float | None, *, back_off: bool
) -> VerificationRequest:
    """Returns the request for an answer of an unknown producer: the lowest score of its checks counts.

    Raises `InputError` E013 for an answer that is not JSON, V010 for an invalid check, V011 for an unknown agent.
    """
    catalog = project.catalog()
    names, judges = validate_checks(checks, catalog.agents, catalog.tools)
    is_untyped = isinstance(answer.value, str | dict | list)
    return VerificationRequest(
        value=_answer_json(answer.value),
        schema=(
            infer_schema(answer.value, check_names(names))
            if is_untyped
            else schema_of(type(answer.value), "serialization")
        ),
        evidence=collect_sources(to_jsonable(answer.against)),
        checks=names,
        accept=DEFAULT_THRESHOLD if accept is None else accept,
        confidence=answer.confidence,
        inputs=to_jsonable(dict(answer.inputs)),
        judges=judges,
        back_off=back_off,
    )


def combined_request(
    project: Project,
    answer: CheckedAnswer,
    which: str | Path,
    checks: tuple[str, ...] | None,
    accept: float | None,
    *,
    back_off: bool = False,
) -> VerificationRequest:
    """Returns the request for an agent's answer whose combination makes one score of all checks.

    Args:
        which: The agent, or the file of a combination.
        checks: None, or the checks of the combination.
        accept: The score from which the answer is accepted; None for the threshold of a certificate over the combined
        score, else 0.5.

    Raises:
        InputError: A001: an unknown agent; L076: it has no combination, or `back_off` is set; V002 to V008: an invalid
        combination or certificate; V012: a check needs more than is given; E013 and V013: the answer is not JSON, or
        not of this agent.
    """
    if back_off:
        message = "`back_off` keeps parts by what `entailment` says of each, and a combination is about whole values"
        raise InputError("L076", message, hint="leave one of them out")
    combination = _find_combination(project, which)
    card = project.registry.card(combination.agent)
    if checks is not None and frozenset(map(str, parse_checks(checks))) != frozenset(combination.checks):
        expected, stated_checks = ", ".join(combination.checks), ", ".join(checks)
        message = f"the combination of {card.name!r} uses the checks {expected}, and not {stated_checks}"
        raise InputError("V005", message, hint="leave the checks out: they are those of the combination")
    value = _answer_json(answer.value)
    if (fault := Validator(card.output_schema).check(value)) is not None:
        raise InputError(
            "V013", f"this is no answer of {card.name!r}: {fault}", hint=f"orchestra agents show {card.name}"
        )
    is_agent = not _is_file(which)
    certificate = _find_certificate(project, combination, is_own=is_agent) if accept is None else None
    if accept is None:
        accept = certificate.threshold if certificate is not None else DEFAULT_THRESHOLD
    catalog = project.catalog()
    names, judges = validate_checks(combination.checks, catalog.agents, catalog.tools)
    situation = VerificationRequest(
        value=value,
        schema=card.output_schema,
        evidence=collect_sources(to_jsonable(answer.against)),
        checks=names,
        accept=accept,
        confidence=answer.confidence,
        guarantee=certificate.guarantee if certificate is not None else "",
        producer=project.contract(card),
        inputs=to_jsonable(dict(answer.inputs)),
        judges=judges,
        combination=combination,
    )
    if missing := dict(_missing_inputs(situation, card.contract)):
        message = f"the combination of {card.name!r} needs what is not given for this answer: {', '.join(missing)}"
        raise InputError("V012", message, hint="; ".join(dict.fromkeys(missing.values())))
    return situation


def _answer_json(value: Any) -> Any:
    """Returns an answer as JSON. Raises `InputError` E013 for NaN, infinities and other values that a journal would not
    read back unchanged.
    """
    plain = to_jsonable(value)
    if fault := storage_error(plain):
        raise InputError("E013", f"the answer: {fault}", hint="pass finite numbers, valid texts and flat values")
    return plain


def _is_file(reference: str | Path) -> bool:
    return isinstance(reference, Path) or looks_like_path(reference) or reference.endswith(".json")


def _find_combination(project: Project, reference: str | Path) -> Combination:
    if _is_file(reference):
        return certificates.read_combination(project.settings, project.registry, Path(reference))
    agent = project.registry.card(str(reference)).name
    combination: Combination | None = project.catalog().combinations.get(agent)
    if combination is None:
        raise InputError(
            "L076",
            f"there is no combination of checks for {agent!r}",
            hint=f"orchestra learn combine {agent} --data FILE",
        )
    return combination


def _find_certificate(project: Project, combination: Combination, *, is_own: bool) -> Certificate | None:
    """Returns the certificate of the combined score; None if the agent's certificate is for another one. An outdated
    certificate of the agent's own combination is an error. Raises `InputError` V002 to V008.
    """
    agent = combination.agent
    path = certificates.find_certificate(project.settings, project.registry, agent)
    about = certificates.read_certificate(path, agent).combination if path is not None else ""
    if not about:
        return None
    if about == combination.digest:
        certificate: Certificate = project.catalog().certificates[agent]
        return certificate
    if is_own:
        message = f"the certificate of {agent!r} is about a combination of checks that is not the one of today"
        raise InputError(
            "V005",
            message,
            hint=f"orchestra certify {agent} --data FILE --combined, or say from which score on: accept=0.8",
        )
    return None


def _missing_inputs(situation: VerificationRequest, producer: Contract) -> Iterator[tuple[str, str]]:
    """Yields the checks that need more than is given, each with the parameter that gives it."""
    missing_names = [name for name in producer.input.get("required", ()) if name not in situation.inputs]
    description = "what the agent was asked: inputs={...}, or --input KEY=VALUE"
    for check in (call for rule in parse_checks(situation.checks) for call in check_calls(rule)):
        if check.check == CONFIDENCE and situation.confidence is None:
            yield str(check), "how sure the agent was of it: confidence=0.9, or --confidence 0.9"
        elif check.check == AGREE and missing_names:
            yield str(check), description
        elif check.check in (REDERIVE, TOOL):
            questions = MODEL_CHECKS[check.check].build_questions(check, situation)
            if isinstance(questions, Verdict) and questions.outcome == UNKNOWN:
                yield str(check), description
