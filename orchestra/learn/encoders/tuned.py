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

from orchestra.agents.inference.encoder import (
    CONFIG_FILE,
    RELATIVE_BIAS,
    WEIGHTS_FILE,
    EncoderShape,
    bert_names,
    relative_position_buckets,
)
from orchestra.learn.numerics import pick_dtype

if TYPE_CHECKING:
    from torch import Tensor

INITIAL_SHARPNESS = 16.0
"""What cosines are multiplied by at first; it is learnt."""
ADAPTER_SCALE = 2.0
"""What an adapter's change is multiplied by."""
HEAD_INIT_STD = 0.02
"""The spread of a head's first weights, as BERT has it."""
LinearLayer: TypeAlias = "Callable[[Tensor, str], Tensor]"


@dataclass(frozen=True, slots=True)
class EncoderHyperparameters:
    """How a member is trained."""

    epochs: int = 6
    learning_rate: float = 1e-3
    head_rate_factor: float = 1.0
    """What the rate is multiplied by for all that is no adapter."""
    rank: int = 32
    blocks: int = 3
    """The last blocks of the base, which are tuned."""
    batch_size: int = 64
    dropout: float = 0.1
    seed: int = 7


@dataclass(frozen=True, slots=True)
class FrozenEncoder:
    """The base's arrays, as they are computed with."""

    shape: EncoderShape
    arrays: Mapping[str, Tensor]
    product_dtype: torch.dtype
    """What products are computed in."""

    @classmethod
    def load(cls, folder: Path, product_dtype: torch.dtype | None = None) -> FrozenEncoder:
        """The base of a folder, with products in what is fastest on this CPU. Raises `ValueError` or `KeyError` for one of another kind."""
        import json

        from safetensors.torch import load_file

        product_dtype = product_dtype or pick_dtype("cpu")
        arrays = {
            name: array.float()
            for name, array in bert_names(load_file(folder / WEIGHTS_FILE)).items()
            if array.is_floating_point()
        }
        shape = EncoderShape.from_config(json.loads((folder / CONFIG_FILE).read_bytes()))
        return cls(
            shape,
            arrays | {f"{name}.weight": arrays[f"{name}.weight"].to(product_dtype) for name in shape.linear_layers},
            product_dtype,
        )

    def autocast(self) -> torch.autocast:
        """The context in which products are computed as they should be."""
        return torch.autocast("cpu", self.product_dtype, enabled=self.product_dtype != torch.float32)

    @torch.no_grad()
    def lower_block_states(self, texts: Sequence[Sequence[int]], tuned: int, size: int = 64) -> list[Tensor]:
        """What the blocks below the `tuned` ones give for token numbers of texts: for each, (tokens, width)."""
        given: list[Tensor] = [torch.empty(0)] * len(texts)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            with self.autocast():
                read = self._run_blocks(*pad_tokens([texts[row] for row in rows]), self.shape.layers - tuned)
            for row, hidden in zip(rows, read, strict=True):
                given[row] = hidden[: len(texts[row])].to(
                    self.product_dtype, copy=True
                )  # of all rows at once: in half the bytes
        return given

    def _run_blocks(self, tokens: Tensor, mask: Tensor, blocks: int) -> Tensor:
        x, seen = self.embed_tokens(tokens), self.attention_bias(mask)
        for layer in range(blocks):
            x = self.block(x, seen, f"encoder.layer.{layer}", self.linear, 0.0)
        return x

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """What stands below the first block: (rows, tokens, width)."""
        get = self.arrays
        places = get["embeddings.position_embeddings.weight"][self.shape.first_position :][: tokens.shape[1]]
        first = get["embeddings.word_embeddings.weight"][tokens] + places
        if "embeddings.token_type_embeddings.weight" in get:
            first = first + get["embeddings.token_type_embeddings.weight"][0]
        return self.layer_norm(first, "embeddings.LayerNorm")

    def attention_bias(self, mask: Tensor) -> Tensor:
        """What is added to the scores of attention, (rows, heads or 1, tokens, tokens): nearness, and very little where no token is."""
        rows, length = mask.shape
        hidden = torch.zeros(mask.shape).masked_fill(~mask, -1e4)[:, None, None]
        if not self.shape.relative_buckets:
            return hidden.expand(rows, 1, length, length)
        near = self.arrays[RELATIVE_BIAS][
            torch.from_numpy(relative_position_buckets(length, self.shape.relative_buckets))
        ]
        return hidden + near.permute(2, 0, 1)[None]

    def block(self, x: Tensor, seen: Tensor, name: str, linear: LinearLayer, dropout: float) -> Tensor:
        """One block, with the linear layers as they are given."""
        rows, length, _ = x.shape
        parts = (linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        query, key, value = (part.view(rows, length, self.shape.heads, -1).transpose(1, 2) for part in parts)
        # by products, for torch's own attention takes twice as long of numbers of 16 bits on a processor
        scores = torch.matmul(query, key.transpose(2, 3)) * query.shape[-1] ** -0.5 + seen
        read = torch.matmul(scores.softmax(-1).to(value.dtype), value)
        read = linear(read.transpose(1, 2).reshape(rows, length, -1), f"{name}.attention.output.dense")
        x = self.layer_norm(x + feature_dropout(read, dropout), f"{name}.attention.output.LayerNorm")
        inner = linear(functional.gelu(linear(x, f"{name}.intermediate.dense")), f"{name}.output.dense")
        return self.layer_norm(x + feature_dropout(inner, dropout), f"{name}.output.LayerNorm")

    def linear(self, x: Tensor, name: str) -> Tensor:
        """A linear layer as it is in the base."""
        return functional.linear(x, self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"])

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        """The layer norm of a name."""
        width = (self.shape.hidden_size,)
        return functional.layer_norm(
            x, width, self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"], self.shape.epsilon
        )


def feature_dropout(x: Tensor, share: float) -> Tensor:
    """Some features of each row left out, the same of all its tokens (Gal, Ghahramani 2016, https://arxiv.org/abs/1512.05287): a number by
    chance for each token and feature took a fifth of a step."""
    return x * functional.dropout(torch.ones(len(x), 1, x.shape[2]), share) if share else x


class AdaptedEncoder:
    """A base with adapters that are learnt, on the linear layers of its last blocks."""

    def __init__(self, base: FrozenEncoder, hyperparameters: EncoderHyperparameters) -> None:
        """Adapters that change nothing yet; their halves `up` are zero (LoRA, https://arxiv.org/abs/2106.09685)."""
        self.generator = torch.Generator().manual_seed(hyperparameters.seed)
        self.base, self.hyperparameters, self.training = base, hyperparameters, False
        self.blocks = [
            f"encoder.layer.{layer}" for layer in range(base.shape.layers - hyperparameters.blocks, base.shape.layers)
        ]
        self.parameters: dict[str, Tensor] = {}
        for name in base.shape.linear_layers:
            if name.startswith(tuple(f"{block}." for block in self.blocks)):
                taken, given = base.shape.layer_shape(name)
                self.parameters[f"down.{name}"] = (
                    torch.randn(hyperparameters.rank, taken, generator=self.generator) / math.sqrt(taken)
                ).requires_grad_()
                self.parameters[f"up.{name}"] = torch.zeros(given, hyperparameters.rank).requires_grad_()

    def encode(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The vectors of all tokens of a batch, from what the blocks below gave: (rows, tokens, width)."""
        seen, hidden = self.base.attention_bias(mask), hidden.float()
        with self.base.autocast():
            for block in self.blocks:
                hidden = self.base.block(
                    hidden, seen, block, self._linear, self.hyperparameters.dropout if self.training else 0.0
                )
        return hidden.float()

    def arrays(self) -> dict[str, Tensor]:
        """What was learnt, as a card's arrays say it: the factor of `up` is put into it."""
        made = {
            name: ADAPTER_SCALE * array if name.startswith("up.") else array for name, array in self.parameters.items()
        }
        return {name: array.detach() for name, array in made.items()}

    @torch.no_grad()
    def load_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        """Takes up what was learnt, as `arrays` says it."""
        for name, array in self.parameters.items():
            array.copy_(arrays[name] / ADAPTER_SCALE if name.startswith("up.") else arrays[name])

    def _linear(self, x: Tensor, name: str) -> Tensor:
        down, up = self.parameters[f"down.{name}"], ADAPTER_SCALE * self.parameters[f"up.{name}"]
        return self.base.linear(x, name) + functional.linear(functional.linear(x, down), up)


class PrototypeEncoder(AdaptedEncoder):
    """A base with adapters, and the directions of labels."""

    def __init__(self, base: FrozenEncoder, labels: int, hyperparameters: EncoderHyperparameters) -> None:
        """All directions are zero at first."""
        super().__init__(base, hyperparameters)
        self.parameters["prototypes"] = torch.zeros(labels, base.shape.hidden_size).requires_grad_()
        self.parameters["sharpness"] = torch.tensor(math.log(INITIAL_SHARPNESS)).requires_grad_()

    def embed(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The vectors of a batch: the mean of each text's tokens."""
        weights = mask[:, :, None].float()
        return (self.encode(hidden, mask) * weights).sum(1) / weights.sum(1)

    def logits(self, vectors: Tensor) -> Tensor:
        """Of the labels, from vectors of texts."""
        cosines = functional.normalize(vectors, dim=1) @ functional.normalize(self.parameters["prototypes"], dim=1).T
        return self.parameters["sharpness"].exp() * cosines

    def arrays(self) -> dict[str, Tensor]:
        """What was learnt: prototypes of length one, and the sharpness as it multiplies."""
        made = super().arrays()
        return made | {
            "prototypes": functional.normalize(made["prototypes"], dim=1),
            "sharpness": made["sharpness"].exp(),
        }

    def load_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        """Takes up what was learnt, the sharpness as it multiplies."""
        super().load_arrays({**arrays, "sharpness": arrays["sharpness"].log()})


class TokenHeadEncoder(AdaptedEncoder):
    """A base with adapters, and a head that gives each token some logits, such as of an answer that begins there, and of one that ends
    there."""

    def __init__(self, base: FrozenEncoder, hyperparameters: EncoderHyperparameters, outputs: int = 2) -> None:
        """A head of small random weights."""
        super().__init__(base, hyperparameters)
        self.parameters["weight"] = (
            torch.randn(outputs, base.shape.hidden_size, generator=self.generator) * HEAD_INIT_STD
        ).requires_grad_()
        self.parameters["bias"] = torch.zeros(outputs).requires_grad_()

    def logits(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(rows, tokens, outputs)."""
        return functional.linear(self.encode(hidden, mask), self.parameters["weight"], self.parameters["bias"])


def pad_states(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Texts of different lengths as one array, and where they are."""
    length = max(map(len, texts))
    hidden = torch.zeros(len(texts), length, texts[0].shape[1], dtype=texts[0].dtype)
    for row, text in enumerate(texts):
        hidden[row, : len(text)] = text
    return hidden, torch.arange(length) < torch.tensor([[len(text)] for text in texts])


def pad_tokens(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token numbers of texts of different lengths as one array, and where they are."""
    length = max(map(len, texts))
    tokens = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts])
    return tokens, torch.arange(length) < torch.tensor([[len(text)] for text in texts])
