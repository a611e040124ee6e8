"""Retries as pure functions: how many attempts a node has, and how long it waits between them (tenacity's policies)."""

from __future__ import annotations

from tenacity import RetryCallState, wait_exponential

from orchestra.workflow.program import CompiledNode

OUTSIDE_TYPE = 2
"""Attempts where a model answers outside its type: one bounded retry."""
NOT_ACCEPTED = 2
"""Attempts where checks do not accept, and `otherwise` says `retry`."""


def attempts(node: CompiledNode, code: str) -> int:
    """Attempts in all, given the code of the last error. A tool that must happen once has one, whatever the file says."""
    contract = node.contract
    if contract is not None and contract.effect == "once":
        return 1
    if node.source.retry is not None:
        return node.source.retry.attempts
    match code[:1]:
        case "M":
            return OUTSIDE_TYPE
        case "V":
            return NOT_ACCEPTED
        case _:
            return node.retry.attempts


def waiting(node: CompiledNode, attempt: int, code: str) -> tuple[float, float]:
    """The bounds in seconds of the wait after `attempt`: exponential, with the upper half left to chance.

    No wait after an output outside its type (M-codes): time does not mend that.
    """
    if code.startswith("M"):
        return 0.0, 0.0
    first, most = node.retry.wait
    call = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # a policy reads the attempt number alone
    call.attempt_number = attempt
    longest = wait_exponential(multiplier=first, max=most)(call)
    return longest / 2, longest
