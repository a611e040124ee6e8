"""A sentence encoder under training: a frozen base, a LoRA on the linear layers of its last blocks, and one prototype
for each label.

It is the network of `orchestra.agents.inference.encoder` in torch, for batches and with dropout; both read the same
file. The states below the tuned blocks are constant: they are computed once, so an epoch costs no more than the tuned
blocks. Matrix products are computed in bfloat16 if the CPU has instructions for it; residual states and norms are
float32 (torch's autocast). In bfloat16 throughout, a span reader learnt considerably less.
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
"""Initial factor of cosine similarities; it is learnt."""
ADAPTER_SCALE = 2.0
"""Factor of an adapter's output."""
HEAD_INIT_STD = 0.02
"""Standard deviation of a head's initial weights, as in BERT."""
LinearLayer: TypeAlias = "Callable[[Tensor, str], Tensor]"


@dataclass(frozen=True, slots=True)
class EncoderHyperparameters:
    """Hyperparameters of a member."""

    epochs: int = 6
    learning_rate: float = 1e-3
    head_rate_factor: float = 1.0
    """Factor of the learning rate for all parameters that are not adapters."""
    rank: int = 32
    blocks: int = 3
    """Number of tuned blocks, counted from the last."""
    batch_size: int = 64
    dropout: float = 0.1
    seed: int = 7


@dataclass(frozen=True, slots=True)
class FrozenEncoder:
    """The arrays of the base as tensors."""

    shape: EncoderShape
    arrays: Mapping[str, Tensor]
    product_dtype: torch.dtype
    """The data type of matrix products."""

    @classmethod
    def load(cls, folder: Path, product_dtype: torch.dtype | None = None) -> FrozenEncoder:
        """Loads the base of a folder; products are computed in the fastest data type of this CPU.

        Raises:
            ValueError: The base has another architecture.
            KeyError: An array is missing.
        """
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
        """Returns the autocast context for matrix products."""
        return torch.autocast("cpu", self.product_dtype, enabled=self.product_dtype != torch.float32)

    @torch.no_grad()
    def lower_block_states(self, texts: Sequence[Sequence[int]], tuned: int, size: int = 64) -> list[Tensor]:
        """Returns the states below the `tuned` last blocks for each text, (tokens, width)."""
        lower_block_states: list[Tensor] = [torch.empty(0)] * len(texts)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            with self.autocast():
                batch_states = self._run_blocks(*pad_tokens([texts[row] for row in rows]), self.shape.layers - tuned)
            for row, row_states in zip(rows, batch_states, strict=True):
                lower_block_states[row] = row_states[: len(texts[row])].to(
                    self.product_dtype, copy=True
                )  # for all rows at once, in half the memory
        return lower_block_states

    def _run_blocks(self, tokens: Tensor, mask: Tensor, blocks: int) -> Tensor:
        x, attention_bias = self.embed_tokens(tokens), self.attention_bias(mask)
        for layer in range(blocks):
            x = self.block(x, attention_bias, f"encoder.layer.{layer}", self.linear, 0.0)
        return x

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Returns the states below the first block, (rows, tokens, width)."""
        get = self.arrays
        places = get["embeddings.position_embeddings.weight"][self.shape.first_position :][: tokens.shape[1]]
        first = get["embeddings.word_embeddings.weight"][tokens] + places
        if "embeddings.token_type_embeddings.weight" in get:
            first = first + get["embeddings.token_type_embeddings.weight"][0]
        return self.layer_norm(first, "embeddings.LayerNorm")

    def attention_bias(self, mask: Tensor) -> Tensor:
        """Returns the bias of attention scores, (rows, heads or 1, tokens, tokens): relative positions, and a very low
        value for padding.
        """
        rows, length = mask.shape
        bias = torch.zeros(mask.shape).masked_fill(~mask, -1e4)[:, None, None]
        if not self.shape.relative_buckets:
            return bias.expand(rows, 1, length, length)
        near = self.arrays[RELATIVE_BIAS][
            torch.from_numpy(relative_position_buckets(length, self.shape.relative_buckets))
        ]
        return bias + near.permute(2, 0, 1)[None]

    def block(self, x: Tensor, seen: Tensor, name: str, linear: LinearLayer, dropout: float) -> Tensor:
        """Computes one block with the given linear layers."""
        rows, length, _ = x.shape
        parts = (linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        query, key, value = (part.view(rows, length, self.shape.heads, -1).transpose(1, 2) for part in parts)
        # explicit products: torch's own attention takes twice as long with 16-bit numbers on a CPU
        scores = torch.matmul(query, key.transpose(2, 3)) * query.shape[-1] ** -0.5 + seen
        attended = torch.matmul(scores.softmax(-1).to(value.dtype), value)
        attended = linear(attended.transpose(1, 2).reshape(rows, length, -1), f"{name}.attention.output.dense")
        x = self.layer_norm(x + feature_dropout(attended, dropout), f"{name}.attention.output.LayerNorm")
        inner = linear(functional.gelu(linear(x, f"{name}.intermediate.dense")), f"{name}.output.dense")
        return self.layer_norm(x + feature_dropout(inner, dropout), f"{name}.output.LayerNorm")

    def linear(self, x: Tensor, name: str) -> Tensor:
        """Computes a linear layer of the base."""
        return functional.linear(x, self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"])

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        """Computes a layer norm of the base."""
        width = (self.shape.hidden_size,)
        return functional.layer_norm(
            x, width, self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"], self.shape.epsilon
        )


def feature_dropout(x: Tensor, share: float) -> Tensor:
    """Drops features of each row, the same for all tokens of the row (Gal, Ghahramani 2016,
    https://arxiv.org/abs/1512.05287). A random number for each token and feature took a fifth of a step.
    """
    return x * functional.dropout(torch.ones(len(x), 1, x.shape[2]), share) if share else x


class AdaptedEncoder:
    """A base with trainable adapters on the linear layers of its last blocks."""

    def __init__(self, base: FrozenEncoder, hyperparameters: EncoderHyperparameters) -> None:
        """Creates adapters without effect: their `up` matrices are zero (LoRA, https://arxiv.org/abs/2106.09685)."""
        self.generator = torch.Generator().manual_seed(hyperparameters.seed)
        self.base, self.hyperparameters, self.training = base, hyperparameters, False
        self.blocks = [
            f"encoder.layer.{layer}" for layer in range(base.shape.layers - hyperparameters.blocks, base.shape.layers)
        ]
        self.parameters: dict[str, Tensor] = {}
        for name in base.shape.linear_layers:
            if name.startswith(tuple(f"{block}." for block in self.blocks)):
                input_size, output_size = base.shape.layer_shape(name)
                self.parameters[f"down.{name}"] = (
                    torch.randn(hyperparameters.rank, input_size, generator=self.generator) / math.sqrt(input_size)
                ).requires_grad_()
                self.parameters[f"up.{name}"] = torch.zeros(output_size, hyperparameters.rank).requires_grad_()

    def encode(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Returns the states of all tokens, (rows, tokens, width), from the states below the tuned blocks."""
        attention_bias, hidden = self.base.attention_bias(mask), hidden.float()
        with self.base.autocast():
            for block in self.blocks:
                hidden = self.base.block(
                    hidden, attention_bias, block, self._linear, self.hyperparameters.dropout if self.training else 0.0
                )
        return hidden.float()

    def arrays(self) -> dict[str, Tensor]:
        """Returns the learnt arrays as stored for a card: the factor of `up` is multiplied in."""
        adapter_scales = {
            name: ADAPTER_SCALE * array if name.startswith("up.") else array for name, array in self.parameters.items()
        }
        return {name: array.detach() for name, array in adapter_scales.items()}

    @torch.no_grad()
    def load_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        """Loads learnt arrays in the form of `arrays`."""
        for name, array in self.parameters.items():
            array.copy_(arrays[name] / ADAPTER_SCALE if name.startswith("up.") else arrays[name])

    def _linear(self, x: Tensor, name: str) -> Tensor:
        down, up = self.parameters[f"down.{name}"], ADAPTER_SCALE * self.parameters[f"up.{name}"]
        return self.base.linear(x, name) + functional.linear(functional.linear(x, down), up)


class PrototypeEncoder(AdaptedEncoder):
    """A base with adapters and a prototype for each label."""

    def __init__(self, base: FrozenEncoder, labels: int, hyperparameters: EncoderHyperparameters) -> None:
        """Creates prototypes of zeros."""
        super().__init__(base, hyperparameters)
        self.parameters["prototypes"] = torch.zeros(labels, base.shape.hidden_size).requires_grad_()
        self.parameters["sharpness"] = torch.tensor(math.log(INITIAL_SHARPNESS)).requires_grad_()

    def embed(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Returns the embeddings of a batch: the mean over each text's tokens."""
        weights = mask[:, :, None].float()
        return (self.encode(hidden, mask) * weights).sum(1) / weights.sum(1)

    def logits(self, vectors: Tensor) -> Tensor:
        """Returns the logits of the labels for embeddings."""
        cosines = functional.normalize(vectors, dim=1) @ functional.normalize(self.parameters["prototypes"], dim=1).T
        return self.parameters["sharpness"].exp() * cosines

    def arrays(self) -> dict[str, Tensor]:
        """Returns the learnt arrays: prototypes of length one, and the sharpness as a factor."""
        arrays = super().arrays()
        return arrays | {
            "prototypes": functional.normalize(arrays["prototypes"], dim=1),
            "sharpness": arrays["sharpness"].exp(),
        }

    def load_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        """Loads learnt arrays; the sharpness is a factor."""
        super().load_arrays({**arrays, "sharpness": arrays["sharpness"].log()})


class TokenHeadEncoder(AdaptedEncoder):
    """A base with adapters and a head that gives each token some logits, such as those of the first and the last token
    of an answer.
    """

    def __init__(self, base: FrozenEncoder, hyperparameters: EncoderHyperparameters, outputs: int = 2) -> None:
        """Creates a head of small random weights."""
        super().__init__(base, hyperparameters)
        self.parameters["weight"] = (
            torch.randn(outputs, base.shape.hidden_size, generator=self.generator) * HEAD_INIT_STD
        ).requires_grad_()
        self.parameters["bias"] = torch.zeros(outputs).requires_grad_()

    def logits(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Returns the logits, (rows, tokens, outputs)."""
        return functional.linear(self.encode(hidden, mask), self.parameters["weight"], self.parameters["bias"])


def pad_states(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns states of different lengths as one padded array, with its mask."""
    length = max(map(len, texts))
    padded_states = torch.zeros(len(texts), length, texts[0].shape[1], dtype=texts[0].dtype)
    for row, text in enumerate(texts):
        padded_states[row, : len(text)] = text
    return padded_states, torch.arange(length) < torch.tensor([[len(text)] for text in texts])


def pad_tokens(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Returns token ids of different lengths as one padded array, with its mask."""
    length = max(map(len, texts))
    tokens = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts])
    return tokens, torch.arange(length) < torch.tensor([[len(text)] for text in texts])
