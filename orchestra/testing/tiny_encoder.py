"""A tiny sentence encoder with random weights, in the files of a real one, for tests without downloads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestra.agents.inference.encoder import (
    CONFIG_FILE,
    MPNET_NAMES,
    RELATIVE_BIAS,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    EncoderShape,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = EncoderShape(layers=2, heads=2, hidden_size=16, intermediate_size=24, epsilon=1e-12)
POSITIONS = 64
BUCKETS = 32
"""Position buckets of MPNet. transformers supports no other number."""


def write_encoder(
    folder: Path, words: Iterable[str], seed: int = 7, *, kind: Literal["bert", "mpnet"] = "bert"
) -> Path:
    """Writes a folder with a tiny encoder that knows these words, and returns the folder."""
    import numpy as np

    generator = np.random.default_rng(seed)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(words))]
    mpnet = kind == "mpnet"
    sizes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(vocabulary), SHAPE.hidden_size),
        "embeddings.position_embeddings.weight": (POSITIONS, SHAPE.hidden_size),
        **(
            {RELATIVE_BIAS: (BUCKETS, SHAPE.heads)}
            if mpnet
            else {"embeddings.token_type_embeddings.weight": (2, SHAPE.hidden_size)}
        ),
    }
    for name in SHAPE.linear_layers:
        input_size, output_size = SHAPE.layer_shape(name)
        sizes |= {f"{name}.weight": (output_size, input_size), f"{name}.bias": (output_size,)}
    norms = [
        f"encoder.layer.{layer}.{name}"
        for layer in range(SHAPE.layers)
        for name in ("attention.output.LayerNorm", "output.LayerNorm")
    ]
    arrays = {name: generator.normal(0, 0.3, size).astype(np.float32) for name, size in sizes.items()}
    for name in ("embeddings.LayerNorm", *norms):
        arrays |= {
            f"{name}.weight": np.ones(SHAPE.hidden_size, dtype=np.float32),
            f"{name}.bias": np.zeros(SHAPE.hidden_size, dtype=np.float32),
        }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(
        _safetensors({_mpnet_name(name) if mpnet else name: array for name, array in arrays.items()})
    )
    (folder / TOKENIZER_FILE).write_text(json.dumps(_tokenizer(vocabulary)), "utf-8")
    config = {"model_type": kind, "hidden_act": "gelu", "layer_norm_eps": SHAPE.epsilon, "vocab_size": len(vocabulary)}
    config |= {
        "max_position_embeddings": POSITIONS,
        "pad_token_id": int(mpnet),
        "relative_attention_num_buckets": BUCKETS,
    }
    sides = {"num_hidden_layers": SHAPE.layers, "num_attention_heads": SHAPE.heads}
    widths = {"hidden_size": SHAPE.hidden_size, "intermediate_size": SHAPE.intermediate_size}
    (folder / CONFIG_FILE).write_text(json.dumps(config | sides | widths), "utf-8")
    return folder


def _mpnet_name(name: str) -> str:
    """Returns MPNet's name of an array."""
    for source_name, target_name in MPNET_NAMES:
        name = name.replace(target_name, source_name)
    return name


def _safetensors(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Returns the bytes of a safetensors file (https://github.com/huggingface/safetensors#format)."""
    header, data = dict[str, Any](), b""
    for name, array in sorted(arrays.items()):
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _tokenizer(vocabulary: list[str]) -> dict[str, Any]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content
