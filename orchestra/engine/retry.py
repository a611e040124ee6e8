"""Retries as pure functions: tenacity's policies, composed, asked about facts. No clock, no sleep, no call stands behind them."""

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
"""Attempts where a model answers outside its type: one bounded retry."""
REJECTED_ATTEMPTS = 2
"""Attempts where checks do not accept, and `otherwise` says `retry`."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When attempts end, and how long the pause before the next one is. Policies of tenacity: `|` ends at the first of two."""

    stop: stop_base
    wait: wait_base

    def should_retry(self, attempt: int, seconds: float) -> bool:
        """Whether another attempt follows attempt number `attempt`, which ended `seconds` after the first one began."""
        return not self.stop(_tenacity_state(attempt, seconds))

    def backoff_range(self, attempt: int) -> tuple[float, float]:
        """The bounds in seconds of the pause after an attempt: the upper half is left to chance, so that callers part ways."""
        longest = self.wait(_tenacity_state(attempt, 0.0))
        return longest / 2, longest


def is_retryable(node: CompiledNode, answer: AttemptFinished) -> bool:
    """Whether another attempt can help after this one, if there may be one. After what would come again one is made only where the file
    says `retry`, of the node or by `defaults`."""
    stated = node.source.retry is not None or node.retry is not DEFAULT_RETRY
    return answer.retryable and (stated or not answer.permanent)


def retry_policy(node: CompiledNode, code: str) -> RetryPolicy:
    """The policy of a node after an error of this code.

    A tool that must happen once has one attempt, whatever the file says. After an output outside its type (M-codes), or one that
    the checks do not accept (V-codes), there is no pause: time does not mend that.
    """
    # Imported here: tenacity brings half of tornado where that is installed, and most runs never ask.
    from tenacity import stop_after_attempt, stop_after_delay, wait_exponential, wait_none

    contract, own, retry = node.contract, node.source.retry, node.retry
    kind = code[:1]
    if contract is not None and contract.effect == "once":
        most = 1
    elif own is not None:
        most = own.attempts
    else:
        most = {"M": TYPE_ERROR_ATTEMPTS, "V": REJECTED_ATTEMPTS}.get(kind, retry.attempts)
    stop: stop_base = stop_after_attempt(most)
    if retry.within is not None:
        stop = stop | stop_after_delay(retry.within)
    first, longest = retry.wait
    return RetryPolicy(stop, wait_none() if kind in ("M", "V") else wait_exponential(multiplier=first, max=longest))


def _tenacity_state(attempt: int, seconds: float) -> RetryCallState:
    """The facts in the form in which tenacity's policies read them."""
    from tenacity import RetryCallState

    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # policies read numbers alone
    state.attempt_number, state.start_time, state.outcome_timestamp = attempt, 0.0, seconds
    return state
