"""Checks that an adapter matches its manifest, is of a kind that vLLM applies, and has the shapes of a base model.

vLLM does not check: it applies weights of another width to a part of the layer, and answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from orchestra.core.errors import FleetError
from orchestra.fleet.weights.download import file_sha256
from orchestra.fleet.weights.safetensors import read_shapes
from orchestra.schema.strict_json import JsonDecodingError, decode_json

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder of the Llama family, by peft's names."""
UNIFORM_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"})
"""Model types (`model_type`) whose layers all have the widths of `layer_widths`. Of other types only the width of the
hidden state is known.
"""
PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
"""Initializations of a LoRA in peft that leave the base unchanged (`init_lora_weights`)."""
UNSUPPORTED_SETTINGS = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "layer_replication",
    "use_bdlora",
    "use_qalora",
)
"""Settings of peft that change an adapter's meaning and that vLLM does not apply (vllm/lora/peft_helper.py, vLLM 0.32).
"""
_TENSOR_PATTERN = re.compile(
    r"^(?P<module>.+)\.(?:lora_(?P<half>[AB])\.weight|lora_embedding_[AB]|base_layer\.weight)$"
)
_LAYER_PATTERN = re.compile(r"\.layers\.(\d+)\.")
_OTHER_MODULES = re.compile(r"experts?\b|visual|vision|audio")
"""Modules with widths other than the decoder's."""


class AdapterManifestSummary(msgspec.Struct, frozen=True):
    """The checked part of an adapter's manifest (`orchestra.learn.lora_adapter.AdapterTrainingRecord`). Missing values
    are not checked.
    """

    agent: str = ""
    skill: str = ""
    sha256: str = ""
    base: str = ""
    bases: tuple[str, ...] = ()
    rank: int = 0


def read_manifest(folder: Path) -> AdapterManifestSummary:
    """Returns an adapter's manifest; an empty one if it is missing. Raises `FleetError` F222 if it is unreadable."""
    try:
        return decode_json((folder / MANIFEST).read_bytes(), AdapterManifestSummary)
    except FileNotFoundError:
        return AdapterManifestSummary()
    except (OSError, JsonDecodingError) as error:
        raise mismatch_error(folder, f"its {MANIFEST} cannot be read: {error}") from error


def check_adapter(folder: Path) -> AdapterManifestSummary:
    """Refuses an adapter that contradicts its manifest or configuration, or that vLLM would not apply as trained.

    Call `check_folder` first.

    Returns:
        The manifest.

    Raises:
        FleetError: F222.
    """
    manifest, settings = read_manifest(folder), _read_json(folder / CONFIG)
    for fault in (
        *_settings_faults(settings),
        *_tensor_faults(folder, settings),
        *_manifest_faults(folder, manifest, settings),
    ):
        raise mismatch_error(folder, fault)
    return manifest


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    return content if isinstance(content, dict) else {}


def _settings_faults(settings: Mapping[str, Any]) -> Iterator[str]:
    kind, start = settings.get("peft_type"), settings.get("init_lora_weights")
    if kind not in (None, "LORA"):
        yield f"its type is {kind}, and only LoRA is supported"
    if settings.get("bias") not in (None, "none"):
        yield f"it has a bias ({settings['bias']}), and none is applied"
    if isinstance(start, str) and start.lower() not in PLAIN_INITS:
        yield (
            f"its training changed the base at its start ({start}): "
            "convert it with peft's path_initial_model_for_weight_conversion"
        )
    yield from (f"its {CONFIG} has {key}, which is not applied" for key in UNSUPPORTED_SETTINGS if settings.get(key))


def _tensor_faults(folder: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """Returns errors of the tensors: each pair must have one rank, that of the configuration."""
    ranks: dict[str, dict[str, int]] = {}
    for name, shape in read_shapes(folder / WEIGHTS).items():
        if (part := _TENSOR_PATTERN.match(name)) is None:
            yield f"its tensor {name} is not part of a LoRA"
        elif (half := part["half"]) and len(shape) == 2:
            ranks.setdefault(part["module"], {})[half] = shape[half == "B"]
    rank = settings.get("r") if not settings.get("rank_pattern") else None
    for module, actual_rank in ranks.items():
        if set(actual_rank) != {"A", "B"}:
            yield f"{module} has one of two matrices"
        elif actual_rank["A"] != actual_rank["B"] or (isinstance(rank, int) and actual_rank["A"] != rank):
            yield f"{module} has rank {actual_rank['A']} and {actual_rank['B']}, and its {CONFIG} says {rank}"


def _manifest_faults(folder: Path, manifest: AdapterManifestSummary, settings: Mapping[str, Any]) -> Iterator[str]:
    """Returns the contradictions of the manifest."""
    if manifest.sha256 and (weights_digest := file_sha256(folder / WEIGHTS)) != manifest.sha256:
        yield (
            f"its weights differ from its {MANIFEST}: "
            f"their SHA-256 begins with {weights_digest[:12]}, not with {manifest.sha256[:12]}"
        )
    if manifest.rank and settings.get("r") not in (None, manifest.rank):
        yield f"its {MANIFEST} says rank {manifest.rank}, and its {CONFIG} {settings['r']}"


def check_base(folder: Path, base: Path) -> None:
    """Refuses an adapter whose shapes do not fit the base model in a folder of weights, as far as its `config.json`
    states them.

    Raises:
        FleetError: F222.
    """
    try:
        base_config = _read_json(base / "config.json")
    except (OSError, ValueError):
        return  # the width is not stated
    inner = base_config.get("text_config")
    config = inner if isinstance(inner, dict) else base_config
    layers, known_widths = config.get("num_hidden_layers"), _known_widths(config)
    for name, shape in read_shapes(folder / WEIGHTS).items():
        part = _TENSOR_PATTERN.match(name)
        if part is None or not part["half"] or len(shape) != 2 or _OTHER_MODULES.search(name):
            continue
        if (layer := _LAYER_PATTERN.search(name)) and isinstance(layers, int) and int(layer[1]) >= layers:
            raise mismatch_error(
                folder, f"it has weights of layer {int(layer[1]) + 1}, and the base has {layers} layers"
            )
        at = "AB".index(part["half"])
        width = known_widths.get(part["module"].rpartition(".")[2], (None, None))[at]
        if width is not None and shape[1 - at] != width:
            raise mismatch_error(
                folder, f"it is for another base: {name} is {shape[1 - at]} wide, and the base {width} there"
            )


def layer_widths(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Returns the inputs and outputs of the `LINEAR_LAYERS`, from a model's `config.json`. Raises `KeyError` if they
    are not stated.
    """
    hidden_size, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden_size // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    sides = (
        (hidden_size, queries),
        (hidden_size, keys),
        (hidden_size, keys),
        (queries, hidden_size),
        (hidden_size, inner),
        (hidden_size, inner),
        (inner, hidden_size),
    )
    return dict(zip(LINEAR_LAYERS, sides, strict=True))


def _known_widths(config: Mapping[str, Any]) -> Mapping[str, tuple[int | None, int | None]]:
    """Returns inputs and outputs by layer; None for unknown ones."""
    hidden_size = config.get("hidden_size")
    if not isinstance(hidden_size, int):
        return {}
    if config.get("model_type") in UNIFORM_MODEL_TYPES:
        try:
            return layer_widths(config)
        except (KeyError, TypeError):  # a list, if layers differ
            pass
    return {
        name: (None, hidden_size) if name in ("o_proj", "down_proj") else (hidden_size, None) for name in LINEAR_LAYERS
    }


def mismatch_error(
    folder: Path, reason: str, hint: str = "train it again on this base: orchestra learn train AGENT --data DATA"
) -> FleetError:
    """Returns F222 for an adapter."""
    return FleetError("F222", f"the adapter in {folder} does not fit: {reason}", hint=hint)
