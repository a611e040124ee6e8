"""The base model of a LoRA training: loading it, a batch of packs as tensors, and the logits of the labels."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.learn.batching import Batch, Pack

if TYPE_CHECKING:
    import torch

PADDING_SEGMENT = -1
"""The segment of padding."""


@dataclass(frozen=True, slots=True)
class BatchTensors:
    """A batch as arguments of a model."""

    tokens: torch.Tensor
    """Token ids, (batch, length)."""
    positions: torch.Tensor
    """Position of each token in its own prompt, (batch, length)."""
    mask: torch.Tensor
    """Attention mask, (batch, 1, length, length)."""
    label_mask: torch.Tensor
    """True where the next token is a label token, (batch, length)."""
    labels: torch.Tensor
    """Label tokens, in the order of `label_mask`."""
    example_indices: torch.Tensor
    """Index in the batch of the example of each label token."""


def batch_tensors(batch: Batch, device: torch.device) -> BatchTensors:
    """Builds the tensors of a batch on a device."""
    import torch

    length = max(map(len, batch))
    shape = (len(batch), length)
    tokens, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    segments, label_mask = torch.full(shape, PADDING_SEGMENT), torch.zeros(shape, dtype=torch.bool)
    labels: list[int] = []
    rows: list[int] = []
    count = 0
    for index, pack in enumerate(batch):
        size = len(pack)
        line, places, parts, label_indexes = _flatten_pack(pack)
        tokens[index, :size], positions[index, :size] = torch.tensor(line), torch.tensor(places)
        segments[index, :size] = torch.tensor(parts)
        label_mask[index, torch.tensor(label_indexes)] = True
        for end in pack.suffixes:
            labels += end.label
            rows += [count] * len(end.label)
            count += 1
    ahead = torch.ones(length, length, dtype=torch.bool).tril()
    visibility = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    mask = (ahead & visibility).unsqueeze(1)
    tensors = (tokens, positions, mask, label_mask, torch.tensor(labels), torch.tensor(rows))
    return BatchTensors(*(tensor.to(device) for tensor in tensors))


def _flatten_pack(pack: Pack) -> tuple[list[int], list[int], list[int], list[int]]:
    """Returns the tokens of a pack, their positions, their segments (0 is the prefix), and the indices before each
    label token.

    The last label token is predicted and never read. It is included all the same, so that every example keeps
    its length.
    """
    line, places, parts = list(pack.prefix), list(range(len(pack.prefix))), [0] * len(pack.prefix)
    label_indexes: list[int] = []
    for number, end in enumerate(pack.suffixes, start=1):
        first = len(line) + len(end.prompt) - 1
        label_indexes += range(first, first + len(end.label))
        line += (*end.prompt, *end.label)
        places += range(len(pack.prefix), len(pack.prefix) + len(end))
        parts += [number] * len(end)
    return line, places, parts, label_indexes


def load_base(folder: Path) -> Any:
    """Loads a base model from a folder of safetensors in bfloat16, without running code from the folder and without
    network access.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer of a folder of weights, with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def label_logits(model: Any, batch: BatchTensors) -> torch.Tensor:
    """Returns the logits of the label tokens, (labels, vocabulary). Only these are computed: the output layer is the
    largest matrix of a small model.
    """
    hidden_states = model.model(
        input_ids=batch.tokens, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    scores: torch.Tensor = model.lm_head(hidden_states[batch.label_mask]).float()
    return scores
