"""A sentence encoder being tuned: the base frozen, a LoRA on the linear layers of its last blocks, one direction a label.

The same network as `orchestra.agents.inference.encoder`, in torch, for whole batches and with dropout. Both read the
same file. The blocks below the
tuned ones give the same for a text every time: they are computed once, and an epoch costs no more than the tuned ones. Products are
computed in bfloat16 where the CPU has instructions for it; what runs beside them from block to block, and norms, in 32 bits (torch's
autocast): in bfloat16 throughout, a reader that points learnt a good deal less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.nn import functional

from orchestra.agents.inference.encoder import CONFIG, NEARNESS, WEIGHTS, Shape, distances, named
from orchestra.learn.data_type import pick_precision

if TYPE_CHECKING:
    from torch import Tensor

SHARPNESS = 16.0
"""What cosines are multiplied by at first; it is learnt."""
SCALE = 2.0
"""What an adapter's change is multiplied by."""
HEAD = 0.02
"""The spread of a head's first weights, as BERT has it."""
Linear: TypeAlias = "Callable[[Tensor, str], Tensor]"


@dataclass(frozen=True, slots=True)
class Pace:
    """How a member is trained."""

    epochs: int = 6
    rate: float = 1e-3
    head: float = 1.0
    """What the rate is multiplied by for all that is no adapter."""
    rank: int = 32
    blocks: int = 3
    """The last blocks of the base, which are tuned."""
    batch: int = 64
    dropout: float = 0.1
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Frozen:
    """The base's arrays, as they are computed with."""

    shape: Shape
    arrays: Mapping[str, Tensor]
    products: torch.dtype
    """What products are computed in."""

    @classmethod
    def load(cls, folder: Path, products: torch.dtype | None = None) -> Frozen:
        """The base of a folder, with products in what is fastest on this CPU. Raises `ValueError` or `KeyError` for one of another kind."""
        import json

        from safetensors.torch import load_file

        products = products or pick_precision("cpu")
        arrays = {name: array.float() for name, array in named(load_file(folder / WEIGHTS)).items() if array.is_floating_point()}
        shape = Shape.of(json.loads((folder / CONFIG).read_bytes()))
        return cls(shape, arrays | {f"{name}.weight": arrays[f"{name}.weight"].to(products) for name in shape.names}, products)

    def computing(self) -> torch.autocast:
        """The context in which products are computed as they should be."""
        return torch.autocast("cpu", self.products, enabled=self.products != torch.float32)

    @torch.no_grad()
    def below(self, texts: Sequence[Sequence[int]], tuned: int, size: int = 64) -> list[Tensor]:
        """What the blocks below the `tuned` ones give for token numbers of texts: for each, (tokens, width)."""
        given: list[Tensor] = [torch.empty(0)] * len(texts)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            with self.computing():
                read = self._below(*padded_tokens([texts[row] for row in rows]), self.shape.layers - tuned)
            for row, hidden in zip(rows, read, strict=True):
                given[row] = hidden[: len(texts[row])].to(self.products, copy=True)  # of all rows at once: in half the bytes
        return given

    def _below(self, tokens: Tensor, mask: Tensor, blocks: int) -> Tensor:
        x, seen = self.begun(tokens), self.seen(mask)
        for layer in range(blocks):
            x = self.block(x, seen, f"encoder.layer.{layer}", self.linear, 0.0)
        return x

    def begun(self, tokens: Tensor) -> Tensor:
        """What stands below the first block: (rows, tokens, width)."""
        get = self.arrays
        places = get["embeddings.position_embeddings.weight"][self.shape.first :][: tokens.shape[1]]
        first = get["embeddings.word_embeddings.weight"][tokens] + places
        if "embeddings.token_type_embeddings.weight" in get:
            first = first + get["embeddings.token_type_embeddings.weight"][0]
        return self.normed(first, "embeddings.LayerNorm")

    def seen(self, mask: Tensor) -> Tensor:
        """What is added to the scores of attention, (rows, heads or 1, tokens, tokens): nearness, and very little where no token is."""
        rows, length = mask.shape
        hidden = torch.zeros(mask.shape).masked_fill(~mask, -1e4)[:, None, None]
        if not self.shape.buckets:
            return hidden.expand(rows, 1, length, length)
        near = self.arrays[NEARNESS][torch.from_numpy(distances(length, self.shape.buckets))]
        return hidden + near.permute(2, 0, 1)[None]

    def block(self, x: Tensor, seen: Tensor, name: str, linear: Linear, dropout: float) -> Tensor:
        """One block, with the linear layers as they are given."""
        rows, length, _ = x.shape
        parts = (linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        query, key, value = (part.view(rows, length, self.shape.heads, -1).transpose(1, 2) for part in parts)
        # by products, for torch's own attention takes twice as long of numbers of 16 bits on a processor
        scores = torch.matmul(query, key.transpose(2, 3)) * query.shape[-1] ** -0.5 + seen
        read = torch.matmul(scores.softmax(-1).to(value.dtype), value)
        read = linear(read.transpose(1, 2).reshape(rows, length, -1), f"{name}.attention.output.dense")
        x = self.normed(x + dropped(read, dropout), f"{name}.attention.output.LayerNorm")
        inner = linear(functional.gelu(linear(x, f"{name}.intermediate.dense")), f"{name}.output.dense")
        return self.normed(x + dropped(inner, dropout), f"{name}.output.LayerNorm")

    def linear(self, x: Tensor, name: str) -> Tensor:
        """A linear layer as it is in the base."""
        return functional.linear(x, self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"])

    def normed(self, x: Tensor, name: str) -> Tensor:
        """The layer norm of a name."""
        width = (self.shape.width,)
        return functional.layer_norm(x, width, self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"], self.shape.epsilon)


def dropped(x: Tensor, share: float) -> Tensor:
    """Some features of each row left out, the same of all its tokens (Gal, Ghahramani 2016, https://arxiv.org/abs/1512.05287): a number by
    chance for each token and feature took a fifth of a step."""
    return x * functional.dropout(torch.ones(len(x), 1, x.shape[2]), share) if share else x


class Adapted:
    """A base with adapters that are learnt, on the linear layers of its last blocks."""

    def __init__(self, base: Frozen, pace: Pace) -> None:
        """Adapters that change nothing yet; their halves `up` are zero (LoRA, https://arxiv.org/abs/2106.09685)."""
        self.made = torch.Generator().manual_seed(pace.seed)
        self.base, self.pace, self.training = base, pace, False
        self.blocks = [f"encoder.layer.{layer}" for layer in range(base.shape.layers - pace.blocks, base.shape.layers)]
        self.learnt: dict[str, Tensor] = {}
        for name in base.shape.names:
            if name.startswith(tuple(f"{block}." for block in self.blocks)):
                taken, given = base.shape.sides(name)
                self.learnt[f"down.{name}"] = (torch.randn(pace.rank, taken, generator=self.made) / math.sqrt(taken)).requires_grad_()
                self.learnt[f"up.{name}"] = torch.zeros(given, pace.rank).requires_grad_()

    def read(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The vectors of all tokens of a batch, from what the blocks below gave: (rows, tokens, width)."""
        seen, hidden = self.base.seen(mask), hidden.float()
        with self.base.computing():
            for block in self.blocks:
                hidden = self.base.block(hidden, seen, block, self._linear, self.pace.dropout if self.training else 0.0)
        return hidden.float()

    def arrays(self) -> dict[str, Tensor]:
        """What was learnt, as a card's arrays say it: the factor of `up` is put into it."""
        made = {name: SCALE * array if name.startswith("up.") else array for name, array in self.learnt.items()}
        return {name: array.detach() for name, array in made.items()}

    @torch.no_grad()
    def adopt(self, arrays: Mapping[str, Tensor]) -> None:
        """Takes up what was learnt, as `arrays` says it."""
        for name, array in self.learnt.items():
            array.copy_(arrays[name] / SCALE if name.startswith("up.") else arrays[name])

    def _linear(self, x: Tensor, name: str) -> Tensor:
        down, up = self.learnt[f"down.{name}"], SCALE * self.learnt[f"up.{name}"]
        return self.base.linear(x, name) + functional.linear(functional.linear(x, down), up)


class Tuned(Adapted):
    """A base with adapters, and the directions of labels."""

    def __init__(self, base: Frozen, labels: int, pace: Pace) -> None:
        """All directions are zero at first."""
        super().__init__(base, pace)
        self.learnt["prototypes"] = torch.zeros(labels, base.shape.width).requires_grad_()
        self.learnt["sharpness"] = torch.tensor(math.log(SHARPNESS)).requires_grad_()

    def embed(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The vectors of a batch: the mean of each text's tokens."""
        weights = mask[:, :, None].float()
        return (self.read(hidden, mask) * weights).sum(1) / weights.sum(1)

    def logits(self, vectors: Tensor) -> Tensor:
        """Of the labels, from vectors of texts."""
        cosines = functional.normalize(vectors, dim=1) @ functional.normalize(self.learnt["prototypes"], dim=1).T
        return self.learnt["sharpness"].exp() * cosines

    def arrays(self) -> dict[str, Tensor]:
        """What was learnt: prototypes of length one, and the sharpness as it multiplies."""
        made = super().arrays()
        return made | {"prototypes": functional.normalize(made["prototypes"], dim=1), "sharpness": made["sharpness"].exp()}

    def adopt(self, arrays: Mapping[str, Tensor]) -> None:
        """Takes up what was learnt, the sharpness as it multiplies."""
        super().adopt({**arrays, "sharpness": arrays["sharpness"].log()})


class Pointing(Adapted):
    """A base with adapters, and a head that gives each token some logits, such as of an answer that begins there, and of one that ends
    there."""

    def __init__(self, base: Frozen, pace: Pace, outputs: int = 2) -> None:
        """A head of small random weights."""
        super().__init__(base, pace)
        self.learnt["weight"] = (torch.randn(outputs, base.shape.width, generator=self.made) * HEAD).requires_grad_()
        self.learnt["bias"] = torch.zeros(outputs).requires_grad_()

    def logits(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(rows, tokens, outputs)."""
        return functional.linear(self.read(hidden, mask), self.learnt["weight"], self.learnt["bias"])


def padded(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Texts of different lengths as one array, and where they are."""
    length = max(map(len, texts))
    hidden = torch.zeros(len(texts), length, texts[0].shape[1], dtype=texts[0].dtype)
    for row, text in enumerate(texts):
        hidden[row, : len(text)] = text
    return hidden, torch.arange(length) < torch.tensor([[len(text)] for text in texts])


def padded_tokens(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token numbers of texts of different lengths as one array, and where they are."""
    length = max(map(len, texts))
    tokens = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts])
    return tokens, torch.arange(length) < torch.tensor([[len(text)] for text in texts])
