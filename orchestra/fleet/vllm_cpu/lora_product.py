"""LoRA products on a CPU: correct for all mixtures of adapters, and none, in a batch.

Imported inside vLLM's process only, by `orchestra.fleet.vllm_cpu.plugin`. vLLM 0.32 gathers the complete adapter of
every token, and reads “no adapter” (-1) as the last slot. Here the adapters of a module are stacked in one matrix `a`
and one matrix `b`:

    y[t] += (x[t] a[s]ᵀ) b[s]          few tokens, as in decoding: the kernel of `lora_kernel`
    y[rows] += (x[rows] a[s]ᵀ) b[s]    many, as in prefill: two products for each adapter

If adjacent tokens share an adapter, as in a long prompt, `rows` is a slice of `y`, and the second product adds to it in
place: writing the result elsewhere and adding it costs more than the product.

Small products cost more in calls than in arithmetic. So the slices of a fused layer (q, k, v; gate, up) share both
products, matrices are packed once for oneDNN, as vLLM does with the model's own, an adapter takes only the rows of its
own rank, and modules that it does not change (usually the embedding and the head) cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch.nn.functional import linear, pad
from vllm import _custom_ops as kernels
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from orchestra.fleet.vllm_cpu.lora_kernel import AdapterBlock, FlatAdapters

KERNEL_MAX_TOKENS = 512
"""Tokens in a step up to which the kernel is used, for one thread. `python -m bench.adapter_kernel` times both ways."""

KERNEL_TYPES = frozenset({torch.bfloat16, torch.float32})
"""The types for which the kernel is compiled."""

MIN_RUN_TOKENS = 128
"""The mean length of runs of tokens with the same adapter from which on they are processed as slices."""

Product: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def pack(weight: torch.Tensor) -> Product:
    """Returns `x -> x weightᵀ`, with the weight packed for oneDNN if vLLM has it, like the model's own weights."""
    if kernels._supports_onednn:
        try:
            handler = kernels.create_onednn_mm(weight.t(), 32)
        # not supported for this type on this CPU; vLLM handles the model's weights in the same way
        except RuntimeError:
            pass
        else:
            return lambda x: kernels.onednn_mm(handler, x, None)
    return lambda x: linear(x, weight)


@dataclass(frozen=True, slots=True)
class AdapterProducts:
    """Both products of one or of several stacked adapters."""

    down: Product
    up: Product
    b: torch.Tensor
    """(rows, out)"""

    @staticmethod
    def from_matrices(a: torch.Tensor, b: torch.Tensor) -> AdapterProducts:
        """Packs `a` (rows, in) and `b` (rows, out)."""
        return AdapterProducts(pack(a.contiguous()), pack(b.t().contiguous()), b)


@dataclass(frozen=True)
class AdapterStack:
    """The adapters of one module: `a` is (rows, in), `b` is (rows, out). Slot `s` has the rows from `ends[s]` to
    `ends[s + 1]`.
    """

    a: torch.Tensor
    b: torch.Tensor
    ends: tuple[int, ...]
    versions: tuple[int, ...]
    blocks: tuple[AdapterBlock, ...]
    """The factors by slot and slice, as views of vLLM's tensors."""
    _products: dict[int, AdapterProducts] = field(default_factory=dict)

    @staticmethod
    def from_slots(a_slots: Sequence[torch.Tensor], b_slots: Sequence[torch.Tensor]) -> AdapterStack:
        """Stacks vLLM's tensors, a pair for each slice of a module: (slots, 1, rank, in) and (slots, 1, out, rank)."""
        versions = read_versions(a_slots, b_slots)
        a_slots = a_slots or [b.new_ones(b.shape[0], 1, b.shape[-1], 1) for b in b_slots]
        width = sum(b.shape[-2] for b in b_slots)
        rows_a, rows_b, ends, blocks = (
            [a_slots[0].new_empty(0, a_slots[0].shape[-1])],
            [b_slots[0].new_empty(0, width)],
            [0],
            list[AdapterBlock](),
        )
        for slot in range(a_slots[0].shape[0]):
            left, count = 0, 0
            for a, b in zip(a_slots, b_slots, strict=True):
                down, up = a[slot].flatten(0, -2), b[slot].flatten(0, -2)
                rank = _used_rank(down, up)
                part = up.new_zeros(rank, width)
                part[:, left : left + up.shape[0]] = up[:, :rank].t()
                rows_a.append(down[:rank])
                rows_b.append(part)
                blocks.append(AdapterBlock(slot, left, down[:rank], up[:, :rank]))
                left, count = left + up.shape[0], count + rank
            ends.append(ends[-1] + count)
        return AdapterStack(torch.cat(rows_a), torch.cat(rows_b), tuple(ends), versions, tuple(blocks))

    @cached_property
    def flat(self) -> FlatAdapters:
        """The adapters in the layout of the kernel."""
        return FlatAdapters.from_blocks(self.blocks, len(self.ends) - 1, self.a.shape[1])

    def rows(self, slot: int) -> int:
        """Returns the number of rows of an adapter; 0 if it does not change this module."""
        return self.ends[slot + 1] - self.ends[slot]

    @cached_property
    def width(self) -> int:
        """The output width."""
        return int(self.b.shape[1])

    @cached_property
    def is_kernel_type(self) -> bool:
        """Whether the kernel supports the type."""
        return bool(self.a.dtype == self.b.dtype and self.a.dtype in KERNEL_TYPES)

    def can_read(self, tensor: torch.Tensor) -> bool:
        """Whether the kernel can read a tensor in place, together with these adapters."""
        return tensor.dtype == self.a.dtype and bool(tensor.is_contiguous())

    def slot_products(self, slot: int) -> AdapterProducts:
        """Returns the products of one adapter."""
        adapter_products = self._products.get(slot)
        if adapter_products is None:
            low, high = self.ends[slot : slot + 2]
            adapter_products = self._products[slot] = AdapterProducts.from_matrices(self.a[low:high], self.b[low:high])
        return adapter_products


def read_versions(a_slots: Sequence[torch.Tensor], b_slots: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """Returns torch's version counters of the tensors. They change when an adapter is loaded or dropped."""
    return tuple(tensor._version for tensors in (a_slots, b_slots) for tensor in tensors)


def _used_rank(down: torch.Tensor, up: torch.Tensor) -> int:
    """Returns the rank of the adapter in a slot. The rest of the slot is zeros."""
    live = (down != 0).any(1) & (up != 0).any(0)
    return int(live.nonzero().max()) + 1 if bool(live.any()) else 0


class StepSlots:
    """The slots of the rows of a step's batch. Created once per step, used by every layer."""

    def __init__(self, slots: torch.Tensor) -> None:
        """`slots` is the slot of each row, -1 without an adapter."""
        self.slots = slots
        self.active_slots = sorted(set(slots.tolist()) - {-1})
        count, (owners, counts) = (
            slots.shape[0],
            (part.tolist() for part in torch.unique_consecutive(slots, return_counts=True)),
        )
        runs = [
            (slot, low, high)
            for slot, (low, high) in zip(owners, pairwise(accumulate(counts, initial=0)), strict=True)
            if slot >= 0
        ]
        self.runs = runs if count >= MIN_RUN_TOKENS * len(owners) else []
        """Runs of rows with the same slot, with their bounds; empty if the runs are short."""
        self.use_kernel = not self.runs and count * torch.get_num_threads() <= KERNEL_MAX_TOKENS
        """Whether the kernel is the fastest way. It computes on one thread."""
        self.slot_array = slots.numpy()
        by_slot = slots.argsort(stable=True).numpy()
        self.order = by_slot[count - int((slots >= 0).sum()) :]
        """The rows with a slot, grouped by slot."""
        self._rows: dict[int, torch.Tensor] = {}

    def rows(self, slot: int) -> torch.Tensor:
        """Returns the rows of one slot."""
        row = self._rows.get(slot)
        if row is None:
            row = self._rows[slot] = (self.slots == slot).nonzero().squeeze(1)
        return row


def add_product(y: torch.Tensor, x: torch.Tensor, stack: AdapterStack, step: StepSlots, scale: float = 1.0) -> None:
    """Adds the products of the adapters of `x` to `y`. `y` may be wider or narrower than the adapters."""
    if not stack.ends[-1]:
        return
    if (
        step.use_kernel
        and scale == 1.0
        and stack.is_kernel_type
        and y.shape[1] == stack.width
        and stack.can_read(y)
        and stack.can_read(x)
    ):
        stack.flat.add(y, x, step.order, step.slot_array)
        return
    width = min(y.shape[1], stack.width)  # vLLM pads vocabularies
    y = y if width == y.shape[1] else y[:, :width]
    if step.runs and y.dtype == x.dtype:
        for slot, low, high in step.runs:
            if stack.rows(slot):
                pair = stack.slot_products(slot)
                y[low:high].addmm_(pair.down(x[low:high]), pair.b[:, :width], alpha=scale)
        return
    for slot in filter(stack.rows, step.active_slots):
        rows, pair = step.rows(slot), stack.slot_products(slot)
        inner = pair.down(x.index_select(0, rows))
        outer = pair.up(inner if scale == 1.0 else inner.mul_(scale))
        y.index_add_(0, rows, outer if width == outer.shape[1] else outer[:, :width])


def _as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a view as (rows, width). Usually the tensor is a matrix already, and a view costs a microsecond."""
    return tensor if tensor.dim() == 2 else tensor.view(-1, tensor.shape[-1])


class GroupedLora(PunicaWrapperCPU):  # type: ignore[misc]  # vLLM has no types
    """vLLM's interface to adapters on a CPU, implemented with the products of this module."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._stacks: dict[int, tuple[Any, AdapterStack]] = {}
        self._steps: dict[tuple[str, int], StepSlots] = {}

    def update_metadata(self, *arguments: Any, **named: Any) -> None:
        """Handles a new batch, or other adapters in the slots."""
        self._steps.clear()
        super().update_metadata(*arguments, **named)

    def _step(self, kind: Literal["tokens", "requests"], count: int) -> StepSlots:
        """Returns the step with a number of rows. Rows that vLLM adds as padding have no adapter."""
        step_slots = self._steps.get((kind, count))
        if step_slots is None:
            slots = self.token_lora_indices if kind == "tokens" else self.sampler_indices
            slot_key = slots[:count]
            step_slots = self._steps[kind, count] = StepSlots(pad(slot_key, (0, count - slot_key.shape[0]), value=-1))
        return step_slots

    def _stack(self, a_slots: Sequence[torch.Tensor], b_slots: Sequence[torch.Tensor]) -> AdapterStack:
        key = id(b_slots[0])
        stack = self._stacks.get(key)
        if stack is None or stack[1].versions != read_versions(a_slots, b_slots):
            stack = self._stacks[key] = (b_slots[0], AdapterStack.from_slots(a_slots, b_slots))
        return stack[1]

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **named: Any,
    ) -> None:
        """Handles a linear layer with one or several slices."""
        x, y = _as_matrix(x), _as_matrix(y)
        step = self._step("tokens", x.shape[0])
        if step.active_slots:
            add_product(y, x, self._stack(lora_a_stacked, lora_b_stacked), step, scale)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **named: Any,
    ) -> None:
        """Handles the head, whose rows are requests."""
        x, y = _as_matrix(x), _as_matrix(y)
        step = self._step("requests", x.shape[0])
        if step.active_slots:
            add_product(y, x.to(lora_a_stacked.dtype), self._stack((lora_a_stacked,), (lora_b_stacked,)), step, scale)

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **named: Any
    ) -> None:
        """Handles the embedding. `x` contains the rows that were looked up."""
        step = self._step("tokens", x.shape[0])
        if step.active_slots:
            stack = self._stack((), (lora_b_stacked,))
            for slot in filter(stack.rows, step.active_slots):
                rows, rank = step.rows(slot), stack.rows(slot)
                y.index_add_(0, rows, stack.slot_products(slot).up(x.index_select(0, rows)[:, :rank].contiguous()))

    def add_shrink(self, y: Any, x: torch.Tensor, lora_a_stacked: Any, scale: float, **named: Any) -> None:
        """Handles layers whose adapters are sharded over processes: vLLM's product, without its result for rows without
        an adapter.
        """
        super().add_shrink(y, x, lora_a_stacked, scale, **named)
        bare = self._step("tokens", x.view(-1, x.shape[-1]).shape[0]).rows(-1)
        for part in y:
            part.index_fill_(0, bare, 0)
