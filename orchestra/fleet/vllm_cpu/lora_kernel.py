"""The LoRA product for the few tokens of a decoding step, in one call for all slices of a layer.

A decoding step is bound by calls and memory: oneDNN takes four calls for each adapter in each of 120 layers. This
kernel is one call per layer, and reads the rows of an adapter once for two tokens. numba, a dependency of vLLM for
CPUs, compiles it at import. It is imported inside vLLM's process only, by `orchestra.fleet.vllm_cpu.lora_product`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from llvmlite import ir
from numba import float32, njit, types, uint16
from numba.extending import intrinsic

Array: TypeAlias = "np.ndarray[Any, Any]"

ROWS_PER_PASS = 4
"""Rows that the kernel processes together. The rows of a slice are padded with zeros to a multiple of it."""


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def widen(_context: Any, number: Any) -> Any:
    """Returns the float32 of an element. The bits of a bfloat16, which numba does not support, are the upper half of
    its float32.
    """

    def generate_unchanged(_: Any, __: Any, ___: Any, arguments: Any) -> Any:
        return arguments[0]

    def generate_widening(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(arguments[0], word), ir.Constant(word, 16)), ir.FloatType())

    return (
        (float32(float32), generate_unchanged)
        if isinstance(number, types.Float)
        else (float32(uint16), generate_widening)
    )


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def narrow(_context: Any, _number: Any, like: Any) -> Any:
    """Returns a float32 as an element of the type of `like`: rounded to the nearest bfloat16, ties to even, or
    unchanged. Finite numbers only.
    """

    def generate_unchanged(_: Any, __: Any, ___: Any, arguments: Any) -> Any:
        return arguments[0]

    def generate_narrowing(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        even = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        rounded_bits = builder.add(bits, builder.add(even, ir.Constant(word, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded_bits, ir.Constant(word, 16)), ir.IntType(16))

    return (
        (float32(float32, float32), generate_unchanged)
        if isinstance(like, types.Float)
        else (uint16(float32, uint16), generate_narrowing)
    )


def _kernel_signature(element: str) -> str:
    """Returns the signature of the kernel for an element type: `uint16`, the bits of a bfloat16, or `float32`."""
    matrix, vector, numbers = f"{element}[:, ::1]", f"{element}[::1]", "int64[::1]"
    return f"void({matrix}, {matrix}, {matrix}, {vector}{f', {numbers}' * 6})"


@njit(  # type: ignore[untyped-decorator]  # numba has no types
    fastmath=True,
    boundscheck=False,
    error_model="numpy",
)
def add(
    y: Any, x: Any, a: Any, b: Any, order: Any, slots: Any, ends: Any, lefts: Any, widths: Any, starts: Any
) -> None:
    """Computes `y[t] += (x[t] a[s]ᵀ) b[s]` for each token `t` in `order`, all in bfloat16 or all in float32, with sums
    in float32.

    Tokens are processed in pairs, so that a row is widened once for two. A token without a partner is computed twice
    with equal results. Numba compiles the function for arrays, so they are single parameters; callers use
    `FlatAdapters.add`, which has few.

    Args:
        y: (tokens, out).
        x: (tokens, in).
        a: (rows, in), of a `FlatAdapters`.
        b: The values for all rows.
        order: The tokens with an adapter; those of one slot are adjacent.
        slots: The slot of each token.
        ends: Slot `s` has the rows from `ends[s]` to `ends[s + 1]`.
        lefts: The first column of each row.
        widths: The number of columns of each row.
        starts: The index in `b` of the first value of each row.
    """
    wide, sums = np.empty((2, x.shape[1]), np.float32), np.empty((2, y.shape[1]), np.float32)
    (wide0, wide1), (sums0, sums1) = (wide[0], wide[1]), (sums[0], sums[1])
    place, last = 0, order.shape[0] - 1
    while place <= last:
        token, two = order[place], order[min(place + 1, last)]
        slot = slots[token]
        if slots[two] != slot:
            two = token
        place += 1 if token == two else 2
        row, end = ends[slot], ends[slot + 1]
        if row == end:
            continue
        given0, given1 = x[token], x[two]
        for i in range(x.shape[1]):
            wide0[i], wide1[i] = widen(given0[i]), widen(given1[i])
        while row < end:
            a0, a1, a2, a3 = a[row], a[row + 1], a[row + 2], a[row + 3]
            h0 = h1 = h2 = h3 = k0 = k1 = k2 = k3 = np.float32(0)
            for i in range(x.shape[1]):
                v0, v1, v2, v3 = widen(a0[i]), widen(a1[i]), widen(a2[i]), widen(a3[i])
                h0 += wide0[i] * v0
                h1 += wide0[i] * v1
                h2 += wide0[i] * v2
                h3 += wide0[i] * v3
                k0 += wide1[i] * v0
                k1 += wide1[i] * v1
                k2 += wide1[i] * v2
                k3 += wide1[i] * v3
            left, width, start = lefts[row], widths[row], starts[row]
            # slices are views with one index, which lets LLVM vectorize
            part0, part1 = y[token, left : left + width], y[two, left : left + width]
            b0, b1 = b[start : start + width], b[start + width : start + 2 * width]
            b2, b3 = b[start + 2 * width : start + 3 * width], b[start + 3 * width : start + 4 * width]
            if row == ends[slot] or lefts[row - 1] != left:
                for j in range(width):
                    sums0[j], sums1[j] = widen(part0[j]), widen(part1[j])
            for j in range(width):
                v0, v1, v2, v3 = widen(b0[j]), widen(b1[j]), widen(b2[j]), widen(b3[j])
                sums0[j] += h0 * v0 + h1 * v1 + h2 * v2 + h3 * v3
                sums1[j] += k0 * v0 + k1 * v1 + k2 * v2 + k3 * v3
            row += 4
            if row == end or lefts[row] != left:
                for j in range(width):
                    part0[j] = narrow(sums0[j], part0[j])
                for j in range(width):
                    part1[j] = narrow(sums1[j], part1[j])


@dataclass(frozen=True, slots=True)
class AdapterBlock:
    """An adapter's factors for one slice of a layer: `down` is (rank, in), `up` is (width, rank), for the columns from
    `left` on.
    """

    slot: int
    left: int
    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True, slots=True)
class FlatAdapters:
    """The adapters of a layer in the layout of `add`, in the layer's type; bfloat16 as its bits."""

    a: Array
    b: Array
    ends: Array
    lefts: Array
    widths: Array
    starts: Array

    @staticmethod
    def from_blocks(blocks: Iterable[AdapterBlock], slots: int, wide: int) -> FlatAdapters:
        """Returns the layout of blocks.

        Args:
            blocks: The blocks in the order of their slots.
            slots: The number of slots.
            wide: The input width of the layer.
        """
        blocks = tuple(blocks)
        dtype = blocks[0].down.dtype if blocks else torch.bfloat16
        downs, ups = [torch.empty(0, wide, dtype=dtype)], [torch.empty(0, dtype=dtype)]
        counts, lefts, widths = [0] * slots, list[int](), list[int]()
        for block in blocks:
            padding = -block.down.shape[0] % ROWS_PER_PASS
            downs += [block.down, block.down.new_zeros(padding, wide)]
            ups += [block.up.t().flatten(), block.up.new_zeros(padding * block.up.shape[0])]
            rows = block.down.shape[0] + padding
            counts[block.slot] += rows
            lefts += [block.left] * rows
            widths += [block.up.shape[0]] * rows
        ends, starts = np.cumsum([0, *counts]), np.cumsum([0, *widths])[:-1]
        arrays = (np.asarray(part, np.int64) for part in (ends, lefts, widths, starts))
        return FlatAdapters(as_array(torch.cat(downs)), as_array(torch.cat(ups)), *arrays)

    def add(self, y: torch.Tensor, x: torch.Tensor, order: Array, slots: Array) -> None:
        """Adds the products of the adapters of `x` to `y`. Both are contiguous, and in the type of the adapters."""
        add(as_array(y), as_array(x), self.a, self.b, order, slots, self.ends, self.lefts, self.widths, self.starts)


def as_array(tensor: torch.Tensor) -> Array:
    """Returns a float32 or bfloat16 tensor's memory as a numpy array; a bfloat16 as its bits."""
    array: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def compile_kernel(dtype: torch.dtype) -> None:
    """Compiles the kernel for a tensor type, which takes seconds, before the first step needs it."""
    add.compile(_kernel_signature("uint16" if dtype == torch.bfloat16 else "float32"))
