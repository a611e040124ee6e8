"""Retries as pure functions: tenacity's policies, evaluated on recorded facts. No clock, no sleep, no call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestra.core.events import AttemptFinished
from orchestra.workflows.model import DEFAULT_RETRY
from orchestra.workflows.program import CompiledNode

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.stop import stop_base
    from tenacity.wait import wait_base

TYPE_ERROR_ATTEMPTS = 2
"""Attempts if a model answers outside its type: one retry."""
REJECTED_ATTEMPTS = 2
"""Attempts if checks reject the value and `otherwise` is `retry`."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When attempts end, and how long to wait before the next. Tenacity's policies: `|` stops at the first of two."""

    stop: stop_base
    wait: wait_base

    def should_retry(self, attempt: int, seconds: float) -> bool:
        """Whether another attempt follows attempt number `attempt`, which ended `seconds` after the first one began."""
        return not self.stop(_tenacity_state(attempt, seconds))

    def backoff_range(self, attempt: int) -> tuple[float, float]:
        """Returns the bounds in seconds of the wait after an attempt. The upper half is random, so that callers spread
        out.
        """
        longest = self.wait(_tenacity_state(attempt, 0.0))
        return longest / 2, longest


def is_retryable(node: CompiledNode, answer: AttemptFinished) -> bool:
    """Whether another attempt may help. After a permanent error only if the file states `retry`, of the node or in
    `defaults`.
    """
    has_retry = node.source.retry is not None or node.retry is not DEFAULT_RETRY
    return answer.retryable and (has_retry or not answer.permanent)


def retry_policy(node: CompiledNode, code: str) -> RetryPolicy:
    """Returns the retry policy of a node after an error with this code.

    A tool with the effect `once` has one attempt, regardless of the file. After an output outside its type (M-codes)
    or one that the checks reject (V-codes) there is no wait: time does not help.
    """
    # Imported here: tenacity imports half of tornado if that is installed, and most runs do not need it.
    from tenacity import stop_after_attempt, stop_after_delay, wait_exponential, wait_none

    contract, stated_retry, retry = node.contract, node.source.retry, node.retry
    kind = code[:1]
    if contract is not None and contract.effect == "once":
        max_attempts = 1
    elif stated_retry is not None:
        max_attempts = stated_retry.attempts
    else:
        max_attempts = {"M": TYPE_ERROR_ATTEMPTS, "V": REJECTED_ATTEMPTS}.get(kind, retry.attempts)
    stop: stop_base = stop_after_attempt(max_attempts)
    if retry.within is not None:
        stop = stop | stop_after_delay(retry.within)
    first, longest = retry.wait
    return RetryPolicy(stop, wait_none() if kind in ("M", "V") else wait_exponential(multiplier=first, max=longest))


def _tenacity_state(attempt: int, seconds: float) -> RetryCallState:
    """Returns the facts in the form that tenacity's policies read."""
    from tenacity import RetryCallState

    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # policies read numbers alone
    state.attempt_number, state.start_time, state.outcome_timestamp = attempt, 0.0, seconds
    return state
