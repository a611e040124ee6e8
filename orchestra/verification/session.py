"""State machine of verification with model checks. Pure: the caller makes the calls.

    state = start(request)                    # `ChecksPending` with questions, or the `VerificationResult`
    state = advance(request, state, replies)  # repeated while there are questions

Checks run in the order of their cost: first those without calls, then, one after another, those that can still affect
acceptance. All questions of one check are asked at once. A missing or malformed reply is `unknown`, and `unknown` never
passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from orchestra.agents.contract import Contract
from orchestra.core.errors import InputError
from orchestra.core.events import CheckQuestion, Verdict
from orchestra.core.suggestions import closest_match
from orchestra.verification import custom_checks
from orchestra.verification.acceptance import (
    VerificationRequest,
    VerificationResult,
    build_result,
    next_model_check,
    parse_checks,
    run_deterministic,
)
from orchestra.verification.answer_parts import remaining_value
from orchestra.verification.check_expression import CheckCall, CheckSyntaxError, check_calls, parse_check
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.entailment import ENTAILMENT, JudgeReply
from orchestra.verification.model_checks import MODEL_CHECKS, judge_name
from orchestra.verification.verdict import unknown_by_model


class ChecksPending(msgspec.Struct, frozen=True, kw_only=True):
    """A verification that waits for replies: the check, its questions, and the verdicts so far."""

    check: str
    questions: tuple[CheckQuestion, ...]
    verdicts: tuple[Verdict, ...] = ()


def start(request: VerificationRequest) -> ChecksPending | VerificationResult:
    """Returns the first questions, or the result if there are none."""
    if request.back_off:
        return _start_back_off(request)
    return _next_state(request, run_deterministic(request))


def _start_back_off(request: VerificationRequest) -> ChecksPending | VerificationResult:
    """Asks `entailment` first if parts may be dropped, because the other checks judge what it leaves."""
    check = next(
        (one for one in parse_checks(request.checks) if isinstance(one, CheckCall) and one.check == ENTAILMENT), None
    )
    if check is None:
        return _next_state(request, run_deterministic(request))
    found = MODEL_CHECKS[ENTAILMENT].build_questions(check, request)
    if isinstance(found, tuple):
        return ChecksPending(check=str(check), questions=found)
    return _next_state(request, {**run_deterministic(request), check: _with_check_name(check, found)})


def advance(
    request: VerificationRequest, pending: ChecksPending, replies: Sequence[JudgeReply]
) -> ChecksPending | VerificationResult:
    """Returns the next state after the replies, which are in the order of the questions."""
    found = {parse_check(one.check): one for one in pending.verdicts}
    check = parse_check(pending.check)
    if isinstance(check, CheckCall):
        found[check] = _with_check_name(check, MODEL_CHECKS[check.check].judge_replies(check, request, replies))
    known = {one: verdict for one, verdict in found.items() if isinstance(one, CheckCall)}
    if request.back_off:
        known |= run_deterministic(_remaining_request(request, known))
    return _next_state(request, known)


def finish_without_asking(request: VerificationRequest, pending: ChecksPending, reason: str) -> VerificationResult:
    """Returns the result without asking the questions. The open checks are `unknown` with this reason."""
    rules = parse_checks(request.checks)
    known = {name: one for one in pending.verdicts if isinstance(name := parse_check(one.check), CheckCall)}
    if request.back_off:  # the other checks judge what is left: here the whole value
        known = run_deterministic(request)
    while (check := next_model_check(rules, known, request.combination)) is not None:
        known[check] = unknown_by_model(str(check), reason)
    return build_result(request, rules, known)


def _next_state(request: VerificationRequest, known: dict[CheckCall, Verdict]) -> ChecksPending | VerificationResult:
    rules = parse_checks(request.checks)
    while (check := next_model_check(rules, known, request.combination)) is not None:
        found = MODEL_CHECKS[check.check].build_questions(
            check, _remaining_request(request, known) if check.check == TOOL else request
        )
        if isinstance(found, tuple):
            return ChecksPending(check=str(check), questions=found, verdicts=tuple(known.values()))
        known[check] = _with_check_name(check, found)
    return build_result(request, rules, known)


def _remaining_request(request: VerificationRequest, known: Mapping[CheckCall, Verdict]) -> VerificationRequest:
    """The request for the value without its dropped parts."""
    return (
        msgspec.structs.replace(request, value=remaining_value(request.value, known.values()))
        if request.back_off
        else request
    )


def _with_check_name(check: CheckCall, verdict: Verdict) -> Verdict:
    """The verdict under the full name of the check, with its argument."""
    return msgspec.structs.replace(verdict, check=str(check))


def judge_names(checks: tuple[str, ...]) -> list[str]:
    """Judges of the checks besides the producer, without duplicates: agents by name, tools as `tool(NAME)`."""
    return list(
        dict.fromkeys(
            name for rule in parse_checks(checks) for check in check_calls(rule) if (name := judge_name(check))
        )
    )


def find_judge(name: str, agents: Mapping[str, Contract], own_tools: Mapping[str, Contract]) -> Contract | None:
    """Returns the agent, or the tool in `own_tools`, with this judge name; None if there is none."""
    return own_tools.get(tool) if (tool := custom_checks.tool_name(name)) else agents.get(name)


def validate_checks(
    checks: tuple[str, ...], agents: Mapping[str, Contract], own_tools: Mapping[str, Contract]
) -> tuple[tuple[str, ...], dict[str, Contract]]:
    """Validates checks that were given outside a workflow.

    Returns:
        The checks, and the agents and tools that they call.

    Raises:
        InputError: V010 for a syntax error, V011 for an agent or a tool that is unknown or cannot be called.
    """
    for text in checks:
        try:
            parse_check(text)
        except CheckSyntaxError as error:
            raise InputError(
                "V010", f"{text!r} is no check: {error.reason}", hint='checks="quote | entailment"'
            ) from error
    found: dict[str, Contract] = {}
    for name in judge_names(checks):
        judge, tool = find_judge(name, agents, own_tools), custom_checks.tool_name(name)
        if judge is None:
            near = closest_match(tool or name, known := own_tools if tool else agents)
            hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
            raise InputError(
                "V011",
                f"a check calls the {TOOL if tool else 'agent'} {tool or name!r}, which does not exist",
                hint=hint,
            )
        if tool and (why := custom_checks.signature_error(judge)):
            raise InputError("V011", f"no check can call the tool {tool!r}: {why}", hint="orchestra explain V011")
        found[name] = judge
    return checks, found
