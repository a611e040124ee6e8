"""LoRA products on a CPU, compared with the plain product, with vLLM's own module for CPUs, and without a server.

torch and vllm are imported where they are used, because their import costs seconds.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestra.fleet.vllm_cpu import plugin

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[3]
FEW = 512
"""The limit of the module; the batches are on both sides of it."""
SLOTS, RANK, WIDTH = 3, 16, 64
SLICES = (64, 32, 32)
RANKS = (16, 8, 6)
"""Rank of the adapter in each slot. The rest of a slot is zeros, as in vLLM."""


def adapters(slices: Sequence[int] = SLICES, seed: int = 1) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Returns stacked adapters in vLLM's layout, with every slot in use."""
    import torch

    chance = torch.Generator().manual_seed(seed)
    down = tuple(torch.zeros(SLOTS, 1, RANK, WIDTH, dtype=torch.bfloat16) for _ in slices)
    up = tuple(torch.zeros(SLOTS, 1, size, RANK, dtype=torch.bfloat16) for size in slices)
    for a, b in zip(down, up, strict=True):
        for slot, rank in enumerate(RANKS):
            a[slot, 0, :rank] = torch.randn(rank, WIDTH, generator=chance) * WIDTH**-0.5
            b[slot, 0, :, :rank] = torch.randn(b.shape[2], rank, generator=chance)
    return down, up


def plain(y: Any, x: Any, down: Sequence[Any], up: Sequence[Any], slots: Sequence[int]) -> Any:
    """Returns the expected result, computed row by row in float32."""
    import torch

    rows = y.float().clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            rows[row] += torch.cat(
                [b[slot, 0].float() @ (a[slot, 0].float() @ x[row].float()) for a, b in zip(down, up, strict=True)]
            )
    return rows


def wrapper(
    tokens: Sequence[int], requests: Sequence[int] | None = None, layout: Sequence[int | None] = (7, 8, 9)
) -> Any:
    """Returns a product with a batch: the slot of each token and of each request, -1 for none."""
    import torch

    from orchestra.fleet.vllm_cpu.lora_product import GroupedLora

    lora = GroupedLora(1024, 512, torch.device("cpu"))
    tell(lora, tokens, requests, layout)
    return lora


def tell(
    lora: Any, tokens: Sequence[int], requests: Sequence[int] | None = None, layout: Sequence[int | None] = (7, 8, 9)
) -> None:
    ids = [0 if slot < 0 else layout[slot] for slot in tokens]
    asked = ids if requests is None else [0 if slot < 0 else layout[slot] for slot in requests]
    mapping = SimpleNamespace(index_mapping=tuple(ids), prompt_mapping=tuple(asked), is_prefill=True)
    lora.update_metadata(mapping, list(layout), SLOTS + 1, 1000)


def rows(count: int, width: int, seed: int = 0) -> Any:
    import torch

    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def assert_near(found: Any, wanted: Any) -> None:
    """Asserts that two results differ only by rounding to bfloat16: 8 bits in each of three roundings."""
    import torch

    torch.testing.assert_close(found.float(), wanted, rtol=2**-7, atol=2**-5)


MIXES = {
    "no adapter": [-1] * 5,
    "one adapter": [1] * 6,
    "the last slot": [2] * 3,
    "the last slot beside the base": [-1, 2, -1, 2],
    "all slots and the base": [-1, 0, 1, 2, 2, 1, 0, -1],
    "a gap between slots": [0, -1, 2, 0, 2],
    "odd ones out": [2, 1, 0, 1, -1, 1],
    "a prompt beside decoding": [0, -1, 2, *[1] * (FEW + 40), -1],
    "two prompts": [*[2] * FEW, *[-1] * 30, *[0] * 70],
    "one long prompt": [1] * (FEW + 1),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("mix", MIXES)
def test_lora_rows_get_their_adapter(mix: str, dtype: str) -> None:
    import torch

    slots, kind = MIXES[mix], getattr(torch, dtype)
    down, up = (tuple(part.to(kind) for part in parts) for parts in adapters())
    x, y = rows(len(slots), WIDTH).to(kind), rows(len(slots), sum(SLICES), 5).to(kind)
    wanted = plain(y, x, down, up, slots)
    bare = [row for row, slot in enumerate(slots) if slot < 0]
    before = y[bare].clone()
    wrapper(slots).add_lora_linear(y, x, down, up, 1.0, SLICES)
    assert_near(y, wanted)
    assert torch.equal(y[bare], before), "to the bit: an adapter may not touch them"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("rank", [1, 3, 4, 6, 16])
@pytest.mark.parametrize("width", [1, 7, 64, 100])
def test_lora_kernel_sums_in_float32_and_rounds_once(rank: int, width: int, dtype: str) -> None:
    import numpy as np
    import torch

    from orchestra.fleet.vllm_cpu.lora_kernel import AdapterBlock, FlatAdapters

    kind = getattr(torch, dtype)
    chance = torch.Generator().manual_seed(rank * width)
    blocks = [
        AdapterBlock(
            slot, left, *(torch.randn(*shape, generator=chance).to(kind) for shape in ((rank, WIDTH), (width, rank)))
        )
        for slot, left in ((0, 0), (0, width), (2, width))
    ]
    x, y = rows(5, WIDTH).to(kind), rows(5, 2 * width, 5).to(kind)
    slots = [2, 0, -1, 1, 0]
    exact = y.double()
    for row, slot in enumerate(slots):
        for block in (one for one in blocks if one.slot == slot):
            exact[row, block.left : block.left + width] += block.up.double() @ (block.down.double() @ x[row].double())
    bare = y[[2, 3]].clone()
    FlatAdapters.from_blocks(blocks, 3, WIDTH).add(y, x, np.array([3, 1, 4, 0]), np.array(slots))
    assert torch.equal(y[[2, 3]], bare)
    assert torch.equal(y[0, :width], rows(5, 2 * width, 5)[0, :width].to(kind)), "a slice that an adapter leaves alone"
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=2**-12)
    half = (y.double() - exact).abs() <= (torch.finfo(kind).eps / 2 * 1.01) * exact.abs() + 2**-12
    assert bool(half.all()), "not the nearest"


@pytest.mark.parametrize(
    ("slots", "by_kernel"),
    [
        ([1] * 127, True),
        ([1] * 128, False),
        ([1, 2] * 128, True),
        ([1, -1, 2] * 85, True),
        ([1, 2] * 129, False),
        ([-1] * 3, False),
    ],
)
def test_lora_kernel_is_used_if_faster(slots: list[int], by_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is per thread: with two threads half as many tokens use the kernel."""
    import torch

    from orchestra.fleet.vllm_cpu.lora_kernel import FlatAdapters

    taken = []
    monkeypatch.setattr(FlatAdapters, "add", lambda _, y, x, order, numbers: taken.append(order.tolist()))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    down, up = adapters()
    wrapper(slots).add_lora_linear(rows(len(slots), sum(SLICES), 5), rows(len(slots), WIDTH), down, up, 1.0, SLICES)
    assert taken == [sorted((row for row, slot in enumerate(slots) if slot >= 0), key=slots.__getitem__)] * by_kernel


def test_lora_single_slot_affects_its_rows_only() -> None:
    import torch

    down, up = (tuple(part[:1].clone() for part in parts) for parts in adapters())
    x, y = rows(3, WIDTH), rows(3, sum(SLICES), 5)
    wanted = plain(y, x, down, up, [-1, 0, -1])
    before = y[::2].clone()
    wrapper([-1, 0, -1], layout=(7,)).add_lora_linear(y, x, down, up, 1.0, SLICES)
    assert_near(y, wanted)
    assert torch.equal(y[::2], before)


def test_lora_vllm_product_has_known_fault() -> None:
    """It shows when vLLM has corrected the fault."""
    import torch
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    down, up = adapters()
    x, y = rows(2, WIDTH), rows(2, sum(SLICES), 5)
    before = y[0].clone()
    stock = PunicaWrapperCPU(1024, 64, torch.device("cpu"))
    tell(stock, [-1, 0])
    stock.add_lora_linear(y, x, down, up, 1.0, SLICES)
    assert not torch.equal(y[0], before)


def test_lora_scale_and_padding_rows() -> None:
    down, up = adapters()
    x, y = rows(5, WIDTH), rows(5, sum(SLICES), 5)
    wanted = plain(y, x, down, [b * 2 for b in up], [0, 2, -1, -1, -1])
    wrapper([0, 2, -1]).add_lora_linear(y, x, down, up, 2.0, SLICES)
    assert_near(y, wanted)


def test_lora_loaded_slot_counts_from_next_step() -> None:
    down, up = adapters()
    other = adapters(seed=9)
    lora = wrapper([0, -1])
    for loaded in (adapters(), other):
        for mine, new in zip((*down, *up), (*loaded[0], *loaded[1]), strict=True):
            mine[0] = new[0]
        x, y = rows(2, WIDTH), rows(2, sum(SLICES), 5)
        wanted = plain(y, x, *loaded, [0, -1])
        tell(lora, [0, -1])
        lora.add_lora_linear(y, x, down, up, 1.0, SLICES)
        assert_near(y, wanted)


def test_lora_unchanged_layer_is_skipped() -> None:
    import torch

    down, up = adapters()
    for b in up:
        b[1] = 0
    x, y = rows(3, WIDTH), rows(3, sum(SLICES), 5)
    wanted = plain(y, x, down, up, [1, 1, 0])
    before = y[:2].clone()
    wrapper([1, 1, 0]).add_lora_linear(y, x, down, up, 1.0, SLICES)
    assert_near(y, wanted)
    assert torch.equal(y[:2], before)


def test_lora_head_rows_are_requests() -> None:
    (down,), (up,) = adapters((50,))
    x, y = rows(3, WIDTH), rows(3, 64, 5)  # vocabularies are padded
    wanted = y.float().clone()
    wanted[:, :50] = plain(y[:, :50], x, [down], [up], [2, -1, 0])
    wrapper([2, 2, 2, -1, 0, 0], [2, -1, 0]).add_lora_logits(y, x, down, up, 1.0)
    assert_near(y, wanted)


@pytest.mark.parametrize("mix", ["all slots and the base", "the last slot beside the base", "one adapter"])
def test_lora_embedding_uses_looked_up_rows(mix: str) -> None:
    slots = MIXES[mix]
    _, (up,) = adapters((WIDTH,))
    looked, y = rows(len(slots), RANK), rows(len(slots), WIDTH, 5)
    wanted = y.float().clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            wanted[row] += up[slot, 0].float() @ looked[row].float()
    wrapper(slots).add_lora_embedding(y, looked, up)
    assert_near(y, wanted)


def test_lora_sharded_rows_without_adapter_are_zero() -> None:
    import torch

    down, up = adapters()
    x, y = rows(4, WIDTH), rows(4, sum(SLICES), 5)
    slots = [-1, 2, -1, 0]
    wanted = plain(y, x, down, up, slots)
    lora = wrapper(slots)
    buffers = torch.zeros(len(SLICES), 4, RANK)
    lora.add_shrink(buffers, x, down, 1.0)
    lora.add_expand(y, buffers, up, SLICES)
    assert_near(y, wanted)


def test_plugin_known_versions_are_unchanged() -> None:
    assert plugin.installed_version() in plugin.KNOWN_VERSIONS
    assert plugin.changed_methods() == []


@pytest.mark.parametrize(
    ("version", "taken", "said"),
    [
        ("", plugin.WRAPPER_CLASS, "LoRA products of orchestra"),
        ("0.99.0+cpu", "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU", "vLLM 0.99.0"),
    ],
)
def test_plugin_unknown_version_is_logged_and_unchanged(version: str, taken: str, said: str, tmp_path: Path) -> None:
    if version:
        (tmp_path / f"vllm-{version}.dist-info").mkdir()
        (tmp_path / f"vllm-{version}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
        )
    program = f"""
import logging, sys
logging.basicConfig(level=logging.INFO)
sys.path.insert(0, {str(tmp_path)!r})
from orchestra.fleet.vllm_cpu.plugin import register
register()
register()
from vllm.platforms import current_platform
print("taken:", current_platform.get_punica_wrapper())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"taken: {taken}" in done.stdout, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
