"""The product of adapters for the few tokens of a step that writes, in one call for all slices of a layer.

A step that writes a token for each of a few requests waits for calls and for memory: three calls of oneDNN for each of 120 layers, and
the matrices of all adapters read where one is wanted. This kernel reads the rows of the adapters that are wanted, once. It is compiled
by numba, which vLLM for CPUs brings, when it is imported; inside vLLM's process only, by `orchestra.fleet.lora_product`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import float32, njit, uint16
from numba.extending import intrinsic

AT_ONCE = 4
"""Rows that the kernel takes together; the rows of a slice are filled up with zeros to a multiple of it."""


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def widened(_context: Any, _number: Any) -> Any:
    """The float32 of a bfloat16, which numba does not know: its bits are the upper half."""

    def code(_: Any, builder: Any, __: Any, given: Any) -> Any:
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(given[0], word), ir.Constant(word, 16)), ir.FloatType())

    return float32(uint16), code


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def narrowed(_context: Any, _number: Any) -> Any:
    """The bfloat16 that is nearest to a float32, the even one where two are. Finite numbers only."""

    def code(_: Any, builder: Any, __: Any, given: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(given[0], word)
        even = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        rounded = builder.add(bits, builder.add(even, ir.Constant(word, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded, ir.Constant(word, 16)), ir.IntType(16))

    return uint16(float32), code


_MATRIX, _VECTOR, _NUMBERS = "uint16[:, ::1]", "uint16[::1]", "int64[::1]"


@njit(  # type: ignore[untyped-decorator]  # numba has no types
    f"void({_MATRIX}, {_MATRIX}, {_MATRIX}, {_VECTOR}, {_NUMBERS}, {_NUMBERS}, {_NUMBERS}, {_NUMBERS}, {_NUMBERS})",
    fastmath=True,
    boundscheck=False,
    error_model="numpy",
)
def add(y: Any, x: Any, a: Any, b: Any, slots: Any, ends: Any, lefts: Any, widths: Any, starts: Any) -> None:
    """`y[t] += (x[t] a[s]ᵀ) b[s]` for each token `t` of slot `s`, all in bfloat16, summed in float32.

    `y` is (tokens, out), `x` is (tokens, in), `slots` has each token's slot, -1 for none. Of a `Flat` are `a`, (rows, in), and of each of
    its rows what `b` has for it: the numbers from `starts[r]` on, `widths[r]` of them, for the columns from `lefts[r]` on. Slot `s` has
    the rows from `ends[s]` to `ends[s + 1]`.
    """
    wide, sums = np.empty(x.shape[1], np.float32), np.empty(y.shape[1], np.float32)
    for token in range(y.shape[0]):
        slot = slots[token]
        if slot < 0 or ends[slot] == ends[slot + 1]:
            continue
        given, out = x[token], y[token]
        for i in range(wide.shape[0]):
            wide[i] = widened(given[i])
        row, end = ends[slot], ends[slot + 1]
        while row < end:
            a0, a1, a2, a3 = a[row], a[row + 1], a[row + 2], a[row + 3]
            h0 = h1 = h2 = h3 = np.float32(0)
            for i in range(wide.shape[0]):
                h0 += wide[i] * widened(a0[i])
                h1 += wide[i] * widened(a1[i])
                h2 += wide[i] * widened(a2[i])
                h3 += wide[i] * widened(a3[i])
            left, width, start = lefts[row], widths[row], starts[row]
            # slices are views with one index, which lets LLVM compute with vectors
            part = out[left : left + width]
            b0, b1 = b[start : start + width], b[start + width : start + 2 * width]
            b2, b3 = b[start + 2 * width : start + 3 * width], b[start + 3 * width : start + 4 * width]
            if row == ends[slot] or lefts[row - 1] != left:
                for j in range(width):
                    sums[j] = widened(part[j])
            for j in range(width):
                sums[j] += h0 * widened(b0[j]) + h1 * widened(b1[j]) + h2 * widened(b2[j]) + h3 * widened(b3[j])
            row += 4
            if row == end or lefts[row] != left:
                for j in range(width):
                    part[j] = narrowed(sums[j])


@dataclass(frozen=True, slots=True)
class Block:
    """What an adapter does to one slice of a layer: `down` is (rank, in), `up` is (width, rank), for the columns from `left` on."""

    slot: int
    left: int
    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True, slots=True)
class Flat:
    """The adapters of a layer as `add` reads them; bfloat16 as its bits."""

    a: np.ndarray[Any, Any]
    b: np.ndarray[Any, Any]
    ends: np.ndarray[Any, Any]
    lefts: np.ndarray[Any, Any]
    widths: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]

    @staticmethod
    def of(blocks: Iterable[Block], slots: int, wide: int) -> Flat:
        """From blocks in the order of their slots; `wide` is the width of the layer's input."""
        downs, ups = [torch.empty(0, wide, dtype=torch.bfloat16)], [torch.empty(0, dtype=torch.bfloat16)]
        counts, lefts, widths = [0] * slots, list[int](), list[int]()
        for block in blocks:
            more = -block.down.shape[0] % AT_ONCE
            downs += [block.down, block.down.new_zeros(more, wide)]
            ups += [block.up.t().flatten(), block.up.new_zeros(more * block.up.shape[0])]
            rows = block.down.shape[0] + more
            counts[block.slot] += rows
            lefts += [block.left] * rows
            widths += [block.up.shape[0]] * rows
        ends, starts = np.cumsum([0, *counts]), np.cumsum([0, *widths])[:-1]
        listed = (np.asarray(part, np.int64) for part in (ends, lefts, widths, starts))
        return Flat(bits(torch.cat(downs)), bits(torch.cat(ups)), *listed)

    def add(self, y: torch.Tensor, x: torch.Tensor, slots: np.ndarray[Any, Any]) -> None:
        """Adds to each row of `y` what its adapter makes of the same row of `x`; both in bfloat16 and contiguous."""
        add(bits(y), bits(x), self.a, self.b, slots, self.ends, self.lefts, self.widths, self.starts)


def bits(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The memory of a tensor of bfloat16, as numbers that numpy knows."""
    found: np.ndarray[Any, Any] = tensor.view(torch.uint16).numpy()
    return found
