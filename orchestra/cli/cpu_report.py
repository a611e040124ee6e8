"""The CPU of this machine, as `orchestra doctor` and `orchestra fleet status` describe it."""

from __future__ import annotations

from typing import Any

from orchestra.core.untrusted_text import pluralize
from orchestra.fleet import cpu
from orchestra.fleet.supervisor.folders import Folders


def cpu_as_data(*, measure: bool = False) -> dict[str, Any]:
    """The CPU, what servers on it compute in by default, and the expected speed.

    Args:
        measure: Whether to time products where that was not done before; it takes seconds.

    Returns:
        JSON values; `expected_tokens_per_second` is None where nothing was measured.
    """
    found, cache = cpu.read_cpu(), Folders.from_environment().cache
    speeds = cpu.ensure_speeds(cache) if measure else cpu.cached_speeds(found, cache)
    dtype = cpu.choose_dtype(found, speeds)
    int8 = cpu.default_quantization(found, dtype) == "int8"
    expected = None if speeds is None else round(cpu.expected_tokens_per_second(speeds, dtype, int8=int8))
    return {
        "model": found.model,
        "cores": found.cores,
        "instructions": found.instructions,
        "dtype": dtype,
        "quantization": "int8" if int8 else None,
        "expected_tokens_per_second": expected,
    }


def describe_cpu(*, measure: bool = False) -> str:
    """The same in one line."""
    told = cpu_as_data(measure=measure)
    precision = f"{told['dtype']} with linear layers in int8" if told["quantization"] else told["dtype"]
    line = (
        f"{told['model']}, {pluralize(told['cores'], 'core')}, {told['instructions']}: servers compute in {precision}"
    )
    expected = told["expected_tokens_per_second"]
    return line if expected is None else f"{line}, about {expected} tokens/s (135M model, 32 requests at once)"
