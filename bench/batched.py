"""Batched judging of claims: the shipped judge on all claims beside one document, one by one and in batches.

    python -m bench.batched [--rounds 5] [--claims 1 4 16] [--tokens 350 100] [--docs FOLDER]

The judge is an encoder in this process; its weights are downloaded once, and no other agent is called. Both variants
split the claims over as many threads as there are processors, and each product uses one, as in the engine: *one by one*
is the engine's way, *in batches* has each thread read its share as one padded batch. The order alternates, on new
documents in each round.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench import machine
from bench.scoring import document
from bench.verification import cards_of, write
from orchestra.agents.inference.encoder import (
    RELATIVE_BIAS,
    Encoder,
    LoraWeights,
    gelu,
    lora_weights,
    relative_position_buckets,
)
from orchestra.agents.inference.text_classifier import TextClassifierConfig
from orchestra.agents.inference.threads import processor_count
from orchestra.fleet.weights.encoders import EncoderStore

if TYPE_CHECKING:
    from orchestra.agents.inference.encoder import Array

JUDGE = "entailment"
FAR = np.float32(-1e9)
"""Added to the attention score of padding."""


class Batched(Encoder):
    """An encoder that reads several texts in a batch."""

    def together(self, rows: Sequence[Sequence[int]], changes: Mapping[str, LoraWeights]) -> list[Array]:
        """Returns the embedding of each text, equal to `embed` for one member."""
        length, get, heads = max(map(len, rows)), self._arrays, self.shape.heads
        tokens, there = np.ones((len(rows), length), dtype=np.int64), np.zeros((len(rows), length), dtype=bool)
        for at, row in enumerate(rows):
            tokens[at, : len(row)], there[at, : len(row)] = row, True
        first = get["embeddings.word_embeddings.weight"][tokens]
        first = first + get["embeddings.position_embeddings.weight"][self.shape.first_position :][:length]
        if "embeddings.token_type_embeddings.weight" in get:
            first = first + get["embeddings.token_type_embeddings.weight"][0]
        x = self._layer_norm(first, "embeddings.LayerNorm")
        near = (
            get[RELATIVE_BIAS][relative_position_buckets(length, self.shape.relative_buckets)].transpose(2, 0, 1)
            if self.shape.relative_buckets
            else np.float32(0)
        )
        aside = None if there.all() else np.where(there, np.float32(0), FAR)[:, None, None, :]
        for layer in range(self.shape.layers):
            block = f"encoder.layer.{layer}"
            parts = (self._linear(x, f"{block}.attention.self.{name}", changes) for name in ("query", "key", "value"))
            split = (part.reshape(len(rows), length, heads, -1).transpose(0, 2, 1, 3) for part in parts)
            query, key, value = map(np.ascontiguousarray, split)
            query /= np.float32(math.sqrt(self.shape.hidden_size // heads))
            read = np.empty_like(query)
            for at in range(len(rows)):  # scores of all rows at once exceed a processor's cache
                scores = query[at] @ key[at].transpose(0, 2, 1)
                scores += near
                if aside is not None:
                    scores += aside[at]
                scores -= scores.max(axis=-1, keepdims=True)
                np.exp(scores, out=scores)
                scores /= scores.sum(axis=-1, keepdims=True)
                read[at] = scores @ value[at]
            told = read.transpose(0, 2, 1, 3).reshape(len(rows), length, -1)
            x = self._layer_norm(
                x + self._linear(told, f"{block}.attention.output.dense", changes),
                f"{block}.attention.output.LayerNorm",
            )
            inner = gelu(self._linear(x, f"{block}.intermediate.dense", changes))
            x = self._layer_norm(x + self._linear(inner, f"{block}.output.dense", changes), f"{block}.output.LayerNorm")
        return [x[at, : len(row)].mean(axis=0) for at, row in enumerate(rows)]


@dataclass(frozen=True)
class Judge:
    """The loaded judge and its thread pool."""

    encoder: Batched
    changes: Mapping[str, LoraWeights]
    most: int
    pool: ThreadPoolExecutor
    threads: int

    def one_by_one(self, rows: Sequence[Sequence[int]]) -> list[Array]:
        """Judges as the engine does: as many at once as there are processors."""
        return [vectors[0] for vectors in self.pool.map(lambda row: self.encoder.embed(row, self.changes), rows)]

    def in_batches(self, rows: Sequence[Sequence[int]]) -> list[Array]:
        """Judges one batch on each processor."""
        share = -(-len(rows) // self.threads)
        cut = [rows[at : at + share] for at in range(0, len(rows), share)]
        return [
            one for part in self.pool.map(lambda some: self.encoder.together(some, self.changes), cut) for one in part
        ]


def judge() -> Judge:
    """Loads the packaged judge."""
    card = cards_of()[JUDGE]
    layout, arrays = TextClassifierConfig.read(card)
    encoder = Batched.load(asyncio.run(EncoderStore().folder(card.model)))
    assert isinstance(encoder, Batched)
    wide = {name: array.astype(np.float32) for name, array in arrays.items()}
    threads = processor_count()
    return Judge(encoder, lora_weights(wide, encoder.shape), layout.tokens, ThreadPoolExecutor(threads), threads)


HEAD = """\
| tokens a claim | claims | way | seconds a claim | of a processor | one by one takes so many times that | a vector \
differs by |
|---:|---:|---|---:|---:|---:|---:|"""


def measured(given: argparse.Namespace) -> Iterator[str]:
    """Returns the lines of the table."""
    one, chance = judge(), random.Random(given.seed)
    ways: dict[str, Callable[[Sequence[Sequence[int]]], list[Array]]] = {
        "one by one": one.one_by_one,
        "in batches": one.in_batches,
    }
    for tokens, count in itertools.product(given.tokens, given.claims):
        wall: dict[str, list[float]] = {name: [] for name in ways}
        own: dict[str, list[float]] = {name: [] for name in ways}
        apart, length = 0.0, 0.0
        for turn in range(given.rounds):
            text, claims = document(chance, tokens, count)
            rows = [one.encoder.truncate_pair(claim, text, one.most) for claim in claims]
            length += statistics.mean(map(len, rows)) / given.rounds
            said: dict[str, Any] = {}
            for name in list(ways) if turn % 2 else list(ways)[::-1]:
                began, worked = time.perf_counter(), time.process_time()
                said[name] = np.array(ways[name](rows))
                wall[name].append((time.perf_counter() - began) / count)
                own[name].append((time.process_time() - worked) / count)
            apart = max(apart, float(np.abs(said["one by one"] - said["in batches"]).max()))
        for name in ways:
            ratios = sorted(mine / other for mine, other in zip(own["one by one"], own[name], strict=True))
            ratio = (
                "" if name == "one by one" else f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
            )
            cells = [
                f"{length:.0f}",
                count,
                name,
                spread(wall[name]),
                spread(own[name]),
                ratio,
                f"{apart:.0e}" if ratio else "",
            ]
            yield f"| {' | '.join(map(str, cells))} |"


def spread(values: Sequence[float]) -> str:
    """Returns the median, with minimum and maximum in brackets."""
    return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def main() -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--claims", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=[350, 100],
        help="approximate tokens of the document, by the fleet's tokenizer",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--docs", type=Path, help="write the table into concepts/verification.md of this folder")
    given = parser.parse_args()
    lines = [HEAD]
    with threadpool_limits(1, "blas"):
        for line in measured(given):
            print(line, file=sys.stderr, flush=True)
            lines.append(line)
    table = "\n".join(lines) + f"\n\n{machine.now()}; {machine.code()}."
    print(table)
    if given.docs:
        write(given.docs / "concepts" / "verification.md", "batched", table, "bench.batched")
    return 0


if __name__ == "__main__":
    sys.exit(main())
