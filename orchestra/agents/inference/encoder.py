"""A sentence encoder in numpy: a small BERT or MPNet with several low-rank adapters at once. It returns one vector per
adapter, or per adapter and token.

The weights are memory-mapped, so agents with one base share its pages. An adapter changes every linear layer `W` to `W
+ B A` (LoRA, https://arxiv.org/abs/2106.09685). The members of a committee are rows of one batch, so each matrix of the
base is read once for all of them; reading them dominates the cost of a call. The vector of a sentence is the mean of
its tokens (https://arxiv.org/abs/1908.10084).

MPNet (https://arxiv.org/abs/2004.09297) differs from BERT in the names of its arrays, in its first position, and in an
attention bias by the distance of two tokens, as in T5. Its arrays are renamed to BERT's names when they are read.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from orchestra.agents.inference.threads import BlasThreads

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[numpy.float32]

WEIGHTS_FILE, TOKENIZER_FILE, CONFIG_FILE = "model.safetensors", "tokenizer.json", "config.json"
LINEAR_LAYERS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""The linear layers of a block that adapters change, by their names in the file."""
MPNET_NAMES = (
    ("attention.attn.q.", "attention.self.query."),
    ("attention.attn.k.", "attention.self.key."),
    ("attention.attn.v.", "attention.self.value."),
    ("attention.attn.o.", "attention.output.dense."),
    ("attention.LayerNorm.", "attention.output.LayerNorm."),
)
"""Parts of MPNet's array names, and BERT's names for the same."""
RELATIVE_BIAS = "encoder.relative_attention_bias.weight"
"""MPNet's array of attention biases by distance: (buckets, heads), one for all blocks."""
MAX_BATCH_TOKENS = 512
"""Tokens of a batch. The arrays of a longer one do not fit the cache of a processor."""
MIN_BATCH_TOKENS = 64
"""Tokens from which a batch takes longer to compute than its matrices take to read."""
MAX_DISTANCE = 128
"""Distance in tokens from which on MPNet does not distinguish distances."""


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The sizes of an encoder."""

    layers: int
    heads: int
    hidden_size: int
    intermediate_size: int
    epsilon: float
    first_position: int = 0
    """The position of the first token."""
    relative_buckets: int = 0
    """Number of distance buckets of attention; 0 for none."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EncoderShape:
        """Reads the shape from `config.json`.

        Raises:
            ValueError: If the model is not a supported BERT or MPNet.
            KeyError: If a setting is missing.
        """
        kind, places = config["model_type"], config.get("position_embedding_type", "absolute")
        if kind not in ("bert", "mpnet") or config["hidden_act"] != "gelu" or places != "absolute":
            raise ValueError("the encoder is not a BERT or MPNet with GELU and absolute positions")
        sizes = [
            int(config[key]) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
        ]
        positions = (
            (int(config["pad_token_id"]) + 1, int(config["relative_attention_num_buckets"]))
            if kind == "mpnet"
            else (0, 0)
        )
        return cls(sizes[0], sizes[1], sizes[2], sizes[3], float(config["layer_norm_eps"]), *positions)

    @property
    def linear_layers(self) -> Iterator[str]:
        """The linear layers, in the order of the file's names."""
        return (f"encoder.layer.{layer}.{name}" for layer in range(self.layers) for name in LINEAR_LAYERS)

    def layer_shape(self, name: str) -> tuple[int, int]:
        """Returns the input and output sizes of a linear layer."""
        if name.endswith("intermediate.dense"):
            return self.hidden_size, self.intermediate_size
        return (
            self.intermediate_size if name.endswith("output.dense") and "attention" not in name else self.hidden_size
        ), self.hidden_size


class LoraWeights(NamedTuple):
    """The adapters of a linear layer, stacked: `down` (members, rank, in) and `up` (members, out, rank)."""

    down: Array
    up: Array


class EncodedPair(NamedTuple):
    """Two texts as tokens of one input: `head` has the first text and the marks around it, `body` the second text,
    `tail` the last mark.
    """

    head: list[int]
    body: list[int]
    offsets: list[tuple[int, int]]
    """The span of each token of `body` in the second text, in characters."""
    tail: list[int]


class _TextSpan(NamedTuple):
    """The tokens of one of several texts in an array, and its attention bias."""

    start: int
    end: int
    position_bias: Array | None


class Encoder:
    """A loaded encoder."""

    def __init__(
        self, shape: EncoderShape, arrays: Mapping[str, Array], tokenizer: Any, threads: BlasThreads | None = None
    ) -> None:
        """Creates the encoder. `threads` are those of the process.

        Raises:
            KeyError: If an array is missing.
            ValueError: If an array does not fit the shape.
        """
        self.shape, self._threads = shape, threads or BlasThreads()
        self._arrays = bert_names(arrays)
        self._tokenizer = tokenizer
        if shape.relative_buckets and self._arrays[RELATIVE_BIAS].shape != (shape.relative_buckets, shape.heads):
            raise ValueError(f"{RELATIVE_BIAS} does not have the shape in the configuration")
        for name in shape.linear_layers:
            input_size, output_size = shape.layer_shape(name)
            if self._arrays[f"{name}.weight"].shape != (output_size, input_size) or self._arrays[
                f"{name}.bias"
            ].shape != (output_size,):
                raise ValueError(f"{name} does not have the shape in the configuration")

    @classmethod
    def load(cls, folder: Path, threads: BlasThreads | None = None) -> Encoder:
        """Loads the encoder of a folder. All encoders of a process share its `threads`.

        Raises:
            ValueError: If a file is not valid.
            KeyError: If a setting or an array is missing.
            OSError: If a file cannot be read.
        """
        from tokenizers import Tokenizer

        shape = EncoderShape.from_config(json.loads((folder / CONFIG_FILE).read_bytes()))
        text = (folder / TOKENIZER_FILE).read_text("utf-8")
        if "model" not in json.loads(text):  # for any other content the library raises a bare `Exception`
            raise ValueError(f"{TOKENIZER_FILE} does not contain a tokenizer")
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(shape, map_safetensors(folder / WEIGHTS_FILE), tokenizer, threads)

    def tokenize(self, text: str, limit: int) -> list[int]:
        """Returns the tokens of a text with the first and the last mark. A long text is cut after `limit` tokens."""
        clean = text.encode("utf-8", "replace").decode("utf-8")  # the tokenizer rejects a lone surrogate
        first, *rest = self._tokenizer.encode(clean[: limit * CHARACTERS_PER_TOKEN]).ids
        return [first, *rest[:-1][: limit - 2], rest[-1]]

    def tokenize_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Returns the tokens of a text with the first and the last mark, and the span of each in characters; marks have
        empty spans.
        """
        encoding = self._tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8"))
        return encoding.ids, encoding.offsets

    def tokenize_pair(self, first: str, second: str) -> EncodedPair:
        """Tokenizes two texts without a limit."""
        encoding = self._tokenizer.encode(
            *(text.encode("utf-8", "replace").decode("utf-8") for text in (first, second))
        )
        body = [at for at, text in enumerate(encoding.sequence_ids) if text == 1]
        start, end = (body[0], body[-1] + 1) if body else (len(encoding.ids) - 1, len(encoding.ids) - 1)
        return EncodedPair(
            encoding.ids[:start], encoding.ids[start:end], encoding.offsets[start:end], encoding.ids[end:]
        )

    def truncate_pair(self, first: str, second: str, limit: int) -> list[int]:
        """Tokenizes two texts as one input of at most `limit` tokens. Both are cut at the end; the first gets at most
        half of the limit.
        """
        pair = self.tokenize_pair(first[: limit * CHARACTERS_PER_TOKEN], second[: limit * CHARACTERS_PER_TOKEN])
        marks = len(self.tokenize_pair("", "").head) - 1  # after the first text
        head = (
            pair.head
            if len(pair.head) <= limit // 2
            else [*pair.head[: max(1, limit // 2 - marks)], *pair.head[-marks:]]
        )
        return [*head, *pair.body[: max(0, limit - len(head) - len(pair.tail))], *pair.tail]

    def embed(self, tokens: Sequence[int], adapters: Mapping[str, LoraWeights], members: int = 1) -> Array:
        """Returns the vectors of a text, (members, width)."""
        mean: Array = self.encode(tokens, adapters, members).mean(axis=1)
        return mean

    def encode(self, tokens: Sequence[int], adapters: Mapping[str, LoraWeights], members: int = 1) -> Array:
        """Returns the vectors of a text's tokens, (members, tokens, width)."""
        with self._threads.limit_to_one():
            return self._forward([tokens], adapters, members)[0]

    def embed_batch(self, texts: Sequence[Sequence[int]], adapters: Mapping[str, LoraWeights]) -> list[Array]:
        """Returns the vectors of several texts for one member, each (width,)."""
        return [vectors[0].mean(axis=0) for vectors in self.encode_batch(texts, adapters)]

    def encode_batch(
        self, texts: Sequence[Sequence[int]], adapters: Mapping[str, LoraWeights], members: int = 1
    ) -> list[Array]:
        """Returns the vectors of the tokens of several texts, each (members, tokens, width).

        The values are those of `encode`, apart from rounding. Batches run in parallel on processors that no other batch
        of this process uses.
        """
        vectors: dict[int, Array] = {}

        def run(batch: Sequence[int]) -> None:
            batch_vectors = self._forward([texts[index] for index in batch], adapters, members)
            vectors.update(zip(batch, batch_vectors, strict=True))

        with self._threads.limit_to_one(), self._threads.share_processors() as workers:
            batches = token_batches(list(map(len, texts)), workers)
            if len(batches) > 1 and workers > 1:
                with ThreadPoolExecutor(workers) as pool:
                    list(pool.map(run, batches))
            else:
                for batch in batches:
                    run(batch)
        return [vectors[index] for index in range(len(texts))]

    def _forward(
        self, texts: Sequence[Sequence[int]], adapters: Mapping[str, LoraWeights], members: int
    ) -> list[Array]:
        """Computes texts one behind the other in one array, (members, tokens of all texts, width). Only the attention
        layer distinguishes them. So there is no padding, and each matrix is read once for all texts.
        """
        import numpy as np

        get, lengths = self._arrays, list(map(len, texts))
        places = np.concatenate([np.arange(length) for length in lengths]) + self.shape.first_position
        first = get["embeddings.word_embeddings.weight"][[token for tokens in texts for token in tokens]]
        first = first + get["embeddings.position_embeddings.weight"][places]
        if "embeddings.token_type_embeddings.weight" in get:
            first = first + get["embeddings.token_type_embeddings.weight"][0]
        start = self._layer_norm(first, "embeddings.LayerNorm")
        ends = list(itertools.accumulate(lengths))
        spans = [
            _TextSpan(end - length, end, self._position_bias(length)) for length, end in zip(lengths, ends, strict=True)
        ]
        x: Array = start[None]
        for layer in range(self.shape.layers):
            block = f"encoder.layer.{layer}"
            if len(x) != members and any(f"{block}.{name}" in adapters for name in LINEAR_LAYERS):
                x = np.repeat(x, members, axis=0)  # up to here the members have the same values
            attended = self._attention(x, block, adapters, spans)
            x = self._layer_norm(
                x + self._linear(attended, f"{block}.attention.output.dense", adapters),
                f"{block}.attention.output.LayerNorm",
            )
            inner = gelu(self._linear(x, f"{block}.intermediate.dense", adapters))
            x = self._layer_norm(
                x + self._linear(inner, f"{block}.output.dense", adapters), f"{block}.output.LayerNorm"
            )
        hidden_states: Array = np.repeat(x, members // len(x), axis=0)
        return [hidden_states[:, span.start : span.end] for span in spans]

    def _position_bias(self, length: int) -> Array | None:
        """Returns the attention bias of a text by the distance of two tokens, (heads, from, to)."""
        if not self.shape.relative_buckets:
            return None
        bias: Array = self._arrays[RELATIVE_BIAS][relative_position_buckets(length, self.shape.relative_buckets)]
        return bias.transpose(2, 0, 1)

    def _attention(
        self, x: Array, block: str, adapters: Mapping[str, LoraWeights], spans: Sequence[_TextSpan]
    ) -> Array:
        """Computes the attention layer of each text, (members, tokens, width)."""
        import numpy as np

        members, _, width = x.shape
        heads = self.shape.heads
        query, key, value = (
            self._linear(x, f"{block}.attention.self.{name}", adapters) for name in ("query", "key", "value")
        )
        query /= np.float32(math.sqrt(width // heads))
        attended = np.empty_like(x)
        for start, end, position_bias in spans:
            split_heads = (
                part[:, start:end].reshape(members, end - start, heads, -1).transpose(0, 2, 1, 3)
                for part in (query, key, value)
            )
            # Products of arrays that are not contiguous are slow.
            text_query, text_key, text_value = map(np.ascontiguousarray, split_heads)
            scores: Array = text_query @ text_key.transpose(0, 1, 3, 2)
            if position_bias is not None:
                scores += position_bias
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            attended[:, start:end] = (scores @ text_value).transpose(0, 2, 1, 3).reshape(members, end - start, width)
        return attended

    def _linear(self, x: Array, name: str, adapters: Mapping[str, LoraWeights]) -> Array:
        weight, bias = self._arrays[f"{name}.weight"], self._arrays[f"{name}.bias"]
        product: Array = (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], -1)
        product += bias
        if (change := adapters.get(name)) is None:
            return product
        product += (x @ change.down.transpose(0, 2, 1)) @ change.up.transpose(0, 2, 1)
        return product

    def _layer_norm(self, x: Array, name: str) -> Array:
        import numpy as np

        centred_rows: Array = x - x.mean(axis=-1, keepdims=True)
        centred_rows /= np.sqrt(
            (centred_rows * centred_rows).mean(axis=-1, keepdims=True) + np.float32(self.shape.epsilon)
        )
        centred_rows *= self._arrays[f"{name}.weight"]
        centred_rows += self._arrays[f"{name}.bias"]
        return centred_rows


def token_batches(lengths: Sequence[int], workers: int) -> list[list[int]]:
    """Splits texts into batches of about equal length, for workers that run in parallel.

    Args:
        lengths: The numbers of tokens of the texts.
        workers: The number of workers.

    Returns:
        The positions of the texts of each batch.
    """
    total = sum(lengths)
    count = max(-(-total // MAX_BATCH_TOKENS), min(workers, total // MIN_BATCH_TOKENS), 1)
    count = min(len(lengths), -(-count // workers) * workers if count > 1 else 1)
    batches: list[list[int]] = [[] for _ in range(count)]
    sizes = [0] * count
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        smallest = sizes.index(min(sizes))
        batches[smallest].append(index)
        sizes[smallest] += lengths[index]
    return batches


def lora_weights(arrays: Mapping[str, Array], shape: EncoderShape, members: int = 1) -> dict[str, LoraWeights]:
    """Returns the adapters among an agent's arrays.

    Raises:
        ValueError: If an array does not fit the shape or the number of members.
        KeyError: If an array is missing.
    """
    changes = {
        name: LoraWeights(arrays[f"down.{name}"], arrays[f"up.{name}"])
        for name in shape.linear_layers
        if f"down.{name}" in arrays
    }
    for name, (down, up) in changes.items():
        input_size, output_size = shape.layer_shape(name)
        if down.shape != (members, down.shape[1], input_size) or up.shape != (members, output_size, down.shape[1]):
            raise ValueError(f"the adapters of {name} have other shapes than the encoder")
    return changes


def bert_names(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the arrays of a file to BERT's names."""
    names = {}
    for name, array in arrays.items():
        for source_name, target_name in MPNET_NAMES:
            name = name.replace(source_name, target_name)
        names[name.removeprefix("bert.").removeprefix("mpnet.")] = array
    return names


def relative_position_buckets(count: int, buckets: int) -> NDArray[Any]:
    """Returns the distance bucket of each pair of tokens, (from, to).

    Half of the buckets are for later tokens. Half of each half is for single short distances, the other half for longer
    ones in logarithmic steps (T5, https://arxiv.org/abs/1910.10683, section 2.1).
    """
    import numpy as np

    apart = np.arange(count)[None, :] - np.arange(count)[:, None]
    half, far = buckets // 2, np.abs(apart)
    exact = half // 2
    ratio = np.log(np.maximum(far, 1) / exact) / math.log(MAX_DISTANCE / exact)
    longer = np.minimum(exact + (ratio * (half - exact)).astype(np.int64), half - 1)
    bucket_ids: NDArray[Any] = np.where(apart > 0, half, 0) + np.where(far < exact, far, longer)
    return bucket_ids


CHARACTERS_PER_TOKEN = 32
"""Characters of a text that are read per token of the limit. A longer word is a single unknown token."""


GELU_CHUNK = 1 << 15
"""Numbers that are processed at once, so that all intermediate values stay in the processor's cache. This takes a sixth
of the time.
"""
ERF_COEFFICIENTS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def gelu(x: Array) -> Array:
    """GELU: `x` times the normal distribution function at `x`, with the error function by Abramowitz and Stegun, 7.1.26
    (error within 1.5e-7).
    """
    import numpy as np

    flat = x.reshape(-1)
    output = np.empty_like(flat)
    for start in range(0, flat.size, GELU_CHUNK):
        target, out = flat[start : start + GELU_CHUNK], output[start : start + GELU_CHUNK]
        size = np.abs(target)
        size *= np.float32(math.sqrt(0.5))
        t = np.reciprocal(size * np.float32(0.3275911) + np.float32(1))
        poly = t * np.float32(ERF_COEFFICIENTS[0])
        for factor in ERF_COEFFICIENTS[1:]:
            poly += np.float32(factor)
            poly *= t
        poly *= np.exp(size * -size)  # twice the tail beyond the size
        np.maximum(target, 0, out=out)
        out -= np.abs(target) * poly * np.float32(0.5)
    return output.reshape(x.shape)


def map_safetensors(path: Path) -> dict[str, Array]:
    """Memory-maps the arrays of a safetensors file. Only 32-bit floats are supported.

    Raises:
        ValueError: If the header is not valid.
    """
    import numpy as np

    data = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    if start > len(data):
        raise ValueError(f"{path.name} is not a safetensors file")
    header: dict[str, Any] = json.loads(data[8:start].tobytes())
    arrays: dict[str, Array] = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            first, last = entry["data_offsets"]
            arrays[name] = data[start + first : start + last].view(np.float32).reshape(entry["shape"])
    return arrays
