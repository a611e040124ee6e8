"""Linear layers of a CPU server in float32 and in 8 bits, compared with the plain product."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")]

ERROR_OF_8_BITS = 0.03
"""Relative to the norm of a product of normally distributed numbers: weights are rounded to 129 values, activations to
255.
"""


def numbers(*shape: int, seed: int = 0) -> Any:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(found: Any, wanted: Any) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("tokens", [1, 9, 64])
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 64), (64, 64)])
@pytest.mark.parametrize("biased", [False, True])
def test_products_are_near_plain_product(tokens: int, outputs: int, inputs: int, biased: bool) -> None:
    from orchestra.fleet.vllm_cpu.linear import float32_product, int8_product

    x, weight, bias = (
        numbers(tokens, inputs),
        numbers(outputs, inputs, seed=1),
        numbers(outputs, seed=2) if biased else None,
    )
    wanted = x @ weight.T + (bias if biased else 0)
    assert error(float32_product(weight)(x, None, bias), wanted) < 1e-5
    assert error(int8_product(weight)(x, None, bias), wanted) < ERROR_OF_8_BITS


def test_int8_token_is_independent_of_batch() -> None:
    import torch

    from orchestra.fleet.vllm_cpu.linear import int8_product

    product, x = int8_product(numbers(96, 64, seed=1)), numbers(8, 64)
    alone = torch.cat([product(row[None], None, None) for row in x])
    loud = torch.cat([x, 1000 * numbers(8, 64, seed=3), torch.zeros(1, 64)])
    together = product(loud, None, None)
    assert error(together[:8], alone) < 1e-6
    assert float(together[-1].abs().max()) == 0.0


def test_int8_largest_values_do_not_overflow() -> None:
    """A CPU with AVX2 adds two products of a full weight and a full activation in 16 bits."""
    import torch

    from orchestra.fleet.vllm_cpu.linear import int8_product

    for sign in (1.0, -1.0):
        found = int8_product(torch.full((64, 64), sign))(torch.ones(4, 64), None, None)
        assert error(found, torch.full((4, 64), 64 * sign)) < ERROR_OF_8_BITS


def test_install_narrowing_layers_stay_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from vllm.model_executor.layers import utils

    from orchestra.fleet.vllm_cpu import linear

    left: list[Any] = []
    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", lambda layer, remove_weight: left.append(layer))
    linear.install(int8=True)
    x = numbers(4, 64)
    errors = {}
    for outputs, inputs, kind in ((96, 64, torch.float32), (32, 64, torch.float32), (96, 64, torch.bfloat16)):
        weight = numbers(outputs, inputs, seed=1).to(kind)
        layer = SimpleNamespace(weight=torch.nn.Parameter(weight, requires_grad=False))
        utils.dispatch_cpu_unquantized_gemm(layer, True)
        if kind == torch.bfloat16:
            assert left == [layer]
            continue
        assert layer.weight.numel() == 0, "it is packed, and not kept twice"
        errors[outputs] = error(layer.cpu_linear(x, layer.weight, None), x @ weight.T)
    assert errors[32] < 1e-5 < errors[96] < ERROR_OF_8_BITS
