"""The planner as a state machine: from a request through questions to a model to a plan, or to the reasons why there is
none.

Pure: `start` and `advance` return the next state and the next action. In stepwise mode the model is asked for one line
at a time, under a grammar of exactly the valid lines. Accepted lines are forced from then on, so that the server's
prefix cache applies. After a step the model states whether another step follows; otherwise it writes the answer in the
same response, without a further request. In one-shot mode the model is asked for the whole plan. If a line is wrong,
the lines before it are kept and the rest is requested line by line. A wrong line is returned with its rejection, at
most `repairs` times. Then a larger planner, if there is one, continues from the accepted lines, with as many repairs of
its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from orchestra.router import prompt
from orchestra.router.capabilities import Capabilities
from orchestra.router.free_text_plans import rewrite_lines
from orchestra.router.multi_part import UncoveredParts, find_uncovered, next_numeric_part, received_whole_request
from orchestra.router.plan import Plan
from orchestra.router.plan_grammar import STEP_PREFIX, NoValidStepError, plan_grammar, step_grammar
from orchestra.router.plan_syntax import PlanAnswer, PlanLine, PlanReference, PlanStep, parse_line, split_lines
from orchestra.router.repair_examples import with_example
from orchestra.router.shortlist import best_match
from orchestra.router.validation import (
    NOTHING_TO_COMPUTE,
    PART_NOT_COVERED,
    Rejection,
    effect_rejections,
    parse_or_reject,
    validate_line,
)

DECLINED_CODE = "R014"
"""Error code of a plan that is `return nothing`."""
REPEATED_CALL = "it is the same call as"
"""The beginning of the reason for which a repeated call is rejected."""
UNREADABLE_CODES = frozenset({"M001", "M002", "M003", "M004", "F205", "F210", "F217"})
"""Error codes of replies without a readable line: empty, of another type, truncated, timed out, too large, or
interrupted.
"""
_CONTINUED_LINE = re.compile(r"[0-9]+ = ")
"""The rest of a line whose first letter was already written."""


@dataclass(frozen=True)
class PlanRequest:
    """What to plan, and how."""

    text: str
    capabilities: Capabilities
    repairs: int = 1
    stepwise: bool = True
    failed_calls: tuple[tuple[str, str], ...] = ()
    """Failed calls of earlier plans, as lines of this plan, each with the reason. They must not be repeated."""
    completed_calls: tuple[tuple[str, str], ...] = ()
    """Completed calls of earlier plans, as lines of this plan, each with the input that has its value. They must not be
    repeated.
    """
    has_larger_planner: bool = False
    """Whether a larger planner is available."""
    token_budget: int = 0
    """Tokens of a planner's prompt; 0 if unknown."""
    shows_examples: bool = True
    """Whether a rejection shows a corrected line. Plans of engines without versions had none."""


@dataclass(frozen=True, slots=True)
class PlannerQuestion:
    """A call of the planner agent, or of the larger one."""

    inputs: Mapping[str, str]
    feedback: tuple[str, ...] = ()
    """Rejections of its earlier lines. The inputs contain them as well."""
    escalated: bool = False


@dataclass(frozen=True, slots=True)
class PlanFound:
    """A plan was found."""

    plan: Plan
    repair_count: int = 0
    """Number of lines that were wrong at first."""


@dataclass(frozen=True, slots=True)
class PlanNotFound:
    """No plan was found."""

    rejections: tuple[Rejection, ...]
    steps: tuple[PlanStep, ...] = ()
    """Accepted steps."""

    @property
    def is_declined(self) -> bool:
        """Whether the plan is `return nothing`."""
        return bool(self.rejections) and self.rejections[0].code == DECLINED_CODE


PlannerAction: TypeAlias = PlannerQuestion | PlanFound | PlanNotFound


@dataclass(frozen=True)
class PlannerState:
    """A plan in progress: the accepted steps, and the rejected lines."""

    request: PlanRequest
    steps: tuple[PlanStep, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    """Rejections of the current step."""
    repair_count: int = 0
    escalated: bool = False
    """Whether the larger planner has taken over."""


def start(request: PlanRequest) -> tuple[PlannerState, PlannerAction]:
    """Returns the first question, or at once why there is no plan."""
    return _ask(PlannerState(request))


def advance(state: PlannerState, reply: str) -> tuple[PlannerState, PlannerAction]:
    """Returns the next action after a model's reply to the last question."""
    lines, has_prefix = _split_step_prefix(_plan_lines(reply))
    lines = rewrite_lines(lines, state.steps, state.request.capabilities.inputs)
    if not lines:
        return _reject(
            state,
            (Rejection("R001", f"/steps/{len(state.steps) + 1}", "the line is empty", "s1 = NAME(ARGUMENT=VALUE)"),),
        )
    earlier = {str(step) for step in state.steps}
    if all(text.strip() in earlier for text in lines):
        return _reject(
            state,
            (
                Rejection(
                    "R001", f"/steps/{len(state.steps) + 1}", "this line was already written", "write the next one"
                ),
            ),
        )
    for text in lines:
        if text.strip() in earlier:  # without a grammar a model may start over
            continue
        line = parse_or_reject(text, len(state.steps) + 1)
        if isinstance(line, Rejection):
            return _reject(state, _explain(state, (line,), text, None))
        faults = [
            *validate_line(line, state.request.capabilities, state.steps),
            *_repeated_calls(line, state.request, len(state.steps) + 1),
        ]
        if isinstance(line, PlanAnswer) and faults and all(fault.code == PART_NOT_COVERED for fault in faults):
            return _handle_uncovered(state, line, faults[0])
        if faults:
            return _reject(
                state,
                _explain(state, faults, text, line),
                step_started=all(fault.code == NOTHING_TO_COMPUTE for fault in faults),
            )
        if isinstance(line, PlanAnswer) and not line.values:
            return state, declined_result(state.request)
        if isinstance(line, PlanAnswer):
            return state, PlanFound(Plan(state.steps, line), state.repair_count)
        state = replace(state, steps=(*state.steps, line), rejected=())
    return _ask(state, step_started=has_prefix)


def _handle_uncovered(state: PlannerState, answer: PlanAnswer, fault: Rejection) -> tuple[PlannerState, PlannerAction]:
    """Returns the next action after an answer that leaves out a part of the request.

    While repairs are left, the planner is asked again: for another step if one step received the whole request, else
    for any line. Then the plan is accepted as it is if a step may serve that part, or if a partial plan is wanted; else
    there is no plan. The same holds if the lines of the repairs are all rejected (`_fallback_plan`).
    """
    uncovered = find_uncovered(state.request.capabilities.request_parts, state.steps, answer)
    assert uncovered is not None, "the answer was refused for it"
    needs_more = uncovered.unassigned_values > 0 or any(received_whole_request(step) for step in state.steps)
    after, result = _reject(state, (fault,), step_started=needs_more and not fault.hint.startswith("return"))
    if isinstance(result, PlannerQuestion):
        return after, result
    if state.request.capabilities.may_decline and not uncovered.unassigned_values:
        return state, _uncovered_result(uncovered, state.steps)
    return state, PlanFound(Plan(state.steps, answer), state.repair_count)


def _fallback_plan(state: PlannerState) -> PlanFound | PlanNotFound | None:
    """The plan when an answer was rejected for a part it leaves out, and no repair succeeded; or why it is not
    accepted.

    None if no answer was rejected for this. The answer of the plan has all steps if then no part is left out, else the
    steps that no other step reads.
    """
    if not state.steps:
        return None
    if all(rejection.code != PART_NOT_COVERED for rejection in state.rejected):
        return None
    capabilities, steps = state.request.capabilities, state.steps
    used_roots = {reference.root for step in steps for reference in step.references}
    answer, last = (
        PlanAnswer(tuple(PlanReference(step.name) for step in steps if step.name not in less))
        for less in ((), used_roots)
    )
    if find_uncovered(capabilities.request_parts, steps, answer) is None:
        return PlanFound(Plan(steps, answer), state.repair_count)
    uncovered = find_uncovered(capabilities.request_parts, steps, last)
    return (
        PlanFound(Plan(steps, last), state.repair_count)
        if uncovered is None or uncovered.unassigned_values or not capabilities.may_decline
        else _uncovered_result(uncovered, steps)
    )


def _explain(
    state: PlannerState, faults: Sequence[Rejection], text: str, line: PlanLine | None
) -> tuple[Rejection, ...]:
    """Returns the faults of a line, the first one with a corrected line."""
    if not state.request.shows_examples:
        return tuple(faults)
    return with_example(faults, text, line, state.request.capabilities, state.steps)


def _plan_without_repeats(state: PlannerState) -> PlanFound | None:
    """The accepted steps as a plan, if the planner only repeated calls of them; None if that is no valid plan."""
    if not state.steps:
        return None
    used_roots = {reference.root for step in state.steps for reference in step.references}
    answer = PlanAnswer(tuple(PlanReference(step.name) for step in state.steps if step.name not in used_roots))
    valid = not any(validate_line(answer, state.request.capabilities, state.steps))
    return PlanFound(Plan(state.steps, answer), state.repair_count) if valid else None


def _uncovered_result(uncovered: UncoveredParts, steps: tuple[PlanStep, ...]) -> PlanNotFound:
    """The result if a plan is not accepted because of the parts it leaves out."""
    return PlanNotFound((Rejection(DECLINED_CODE, "/steps", str(uncovered), "--partial plans the rest"),), steps)


def advance_unreadable(state: PlannerState, code: str, reason: str) -> tuple[PlannerState, PlannerAction] | None:
    """Returns the next action after an unreadable reply: a repair, as after a rejected line, or the larger planner.

    None if no planner is left, and after a failure that does not concern the model, such as an unreachable server.
    """
    if code not in UNREADABLE_CODES:
        return None
    fault = Rejection(
        "R020",
        f"/steps/{len(state.steps) + 1}",
        f"no readable line ({code}: {reason})",
        "s1 = NAME(ARGUMENT=VALUE)",
    )
    state, result = _reject(state, (fault,))
    return None if isinstance(result, PlanNotFound) else (state, result)


def _split_step_prefix(lines: list[str]) -> tuple[list[str], bool]:
    """Splits a reply into its lines, without the beginning of the next step, and whether there was one. Completes a
    first line that continues such a beginning.
    """
    if lines and _CONTINUED_LINE.match(lines[0]):
        lines = [STEP_PREFIX + lines[0], *lines[1:]]
    return (lines[:-1], True) if len(lines) > 1 and lines[-1].strip() == STEP_PREFIX else (lines, False)


def declined_result(request: PlanRequest) -> PlanNotFound:
    """The result for the plan `return nothing`."""
    return PlanNotFound(
        (Rejection(DECLINED_CODE, "/answer", "no capability serves the request", _nearest_hint(request)),)
    )


def _nearest_hint(request: PlanRequest) -> str:
    """Hint with the capability that shares most words with the request."""
    capability = best_match(list(request.capabilities.by_name.values()), request.text)
    return "" if capability is None else f"the nearest is {prompt.capability_line(capability)}"


def _repeated_calls(line: PlanLine, request: PlanRequest, number: int) -> Iterator[Rejection]:
    """Rejects a call that was made before: it would fail again, or its value is available."""
    if not isinstance(line, PlanStep):
        return
    for call_text, reason in request.failed_calls:
        if _is_same_call(line, call_text):
            yield Rejection("R009", f"/steps/{number}", f"this call has failed: {reason}", "go another way")
    for call_text, name in request.completed_calls:
        if _is_same_call(line, call_text):
            yield Rejection(
                "R009", f"/steps/{number}", "this call was made, and its value is available", f"use input.{name}"
            )


def _is_same_call(line: PlanStep, call_text: str) -> bool:
    """Whether two lines are the same call, in any order of arguments."""
    other_line = parse_line(call_text)
    return isinstance(other_line, PlanStep) and replace(line, name="s1", after=()) == replace(
        other_line, name="s1", after=()
    )


def _plan_lines(reply: str) -> list[str]:
    """The lines of a plan in a model's reply: those inside its code fence if there is one, else all."""
    lines = [line for line in split_lines(reply) if line.strip()]
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    if not fences:
        return lines
    # A single fence is ambiguous: it may close the lines before it, or open those after it.
    begin, end = (
        (fences[0], fences[1]) if len(fences) > 1 else (fences[0], len(lines)) if fences[0] == 0 else (-1, fences[0])
    )
    return lines[begin + 1 : end]


def _reject(
    state: PlannerState, faults: tuple[Rejection, ...], *, step_started: bool = False
) -> tuple[PlannerState, PlannerAction]:
    rejections = (*state.rejected, *faults)
    repairs = state.request.repairs
    if state.repair_count >= (2 * repairs + 1 if state.escalated else repairs):
        if state.escalated or not state.request.has_larger_planner:
            repeats = all(rejection.reason.startswith(REPEATED_CALL) for rejection in rejections)
            plan = _plan_without_repeats(state) if repeats else _fallback_plan(state)
            return state, plan or PlanNotFound(rejections, state.steps)
        state = replace(state, escalated=True)
    return _ask(replace(state, rejected=rejections, repair_count=state.repair_count + 1), step_started=step_started)


def _ask(state: PlannerState, *, step_started: bool = False) -> tuple[PlannerState, PlannerAction]:
    request, capabilities = state.request, state.request.capabilities
    if capabilities.request_parts is not None and any(
        rejection.code == NOTHING_TO_COMPUTE for rejection in state.rejected
    ):
        capabilities = replace(
            capabilities,
            request_text=next_numeric_part(capabilities.request_parts, state.steps) or capabilities.request_text,
        )  # a computing capability receives a part with a number
    asks_whole_plan = not request.stepwise and not state.steps and not state.rejected
    try:
        grammar = (
            plan_grammar(capabilities)
            if asks_whole_plan
            else step_grammar(capabilities, state.steps, step_started=step_started)
        )
    except NoValidStepError as error:
        if step_started:  # every remaining call exists already
            return _ask(state)
        reason = (
            str(error)
            if len(state.steps) < capabilities.limits.steps
            else "the step limit is reached, and no step gives the wanted output"
        )
        available = ", ".join(capabilities.inputs) or "nothing"
        expectation = f"wanted: {prompt.type_text(capabilities.output_type)}; available: {available}"
        expectation += "".join(
            f"; {name} {exclusion}" for name, (code, exclusion) in capabilities.excluded.items() if code == "R021"
        )
        fault = Rejection("R006", f"/steps/{len(state.steps) + 1}", reason, expectation)
        return state, PlanNotFound(
            (*state.rejected, *([] if state.steps else effect_rejections(capabilities)), fault), state.steps
        )
    feedback = tuple(map(str, state.rejected))
    prompt_inputs = {
        "skills": prompt.capability_lines(capabilities.by_name.values()),
        "values": prompt.value_lines(capabilities.inputs),
        "plan": "\n".join([*map(str, state.steps), *([STEP_PREFIX] if step_started else [])]),
    }
    rest = (
        request.token_budget
        - sum(
            map(prompt.estimate_tokens, (*prompt_inputs.values(), _append_feedback("", feedback, request.failed_calls)))
        )
        if request.token_budget
        else 0
    )
    text = prompt.truncate(
        shorten_request(request.text),
        max(rest, prompt.MIN_REQUEST_TOKENS) if request.token_budget else prompt.DEFAULT_REQUEST_TOKENS,
    )
    inputs = {"request": _append_feedback(text, feedback, request.failed_calls), **prompt_inputs, "grammar": grammar}
    return state, PlannerQuestion(inputs, feedback, state.escalated)


def _append_feedback(request: str, feedback: tuple[str, ...], failed_calls: tuple[tuple[str, str], ...]) -> str:
    """Appends failures and rejections to the request, where the model reads them last."""
    failure_text = "".join(f"\n- {line}: {reason}" for line, reason in failed_calls)
    request = f"{request}\n\nThese calls failed, plan without them:{failure_text}" if failure_text else request
    text = "".join(f"\n- {reason}" for reason in feedback)
    return f"{request}\n\nNot accepted, write another line:{text}" if text else request


def shorten_request(text: str) -> str:
    """Shortens a request to what a model is shown."""
    if len(text) <= prompt.MAX_REQUEST_LENGTH:
        return text
    half = prompt.MAX_REQUEST_LENGTH // 2
    return f"{text[:half]}\n[…]\n{text[-half:]}"
