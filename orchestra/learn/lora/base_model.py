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
    """What a model computes for a batch."""

    tokens: torch.Tensor
    """Batch x length."""
    positions: torch.Tensor
    """Each token's place in its own prompt."""
    mask: torch.Tensor
    """Batch x 1 x length x length: who may see whom."""
    label_mask: torch.Tensor
    """Batch x length: where the next token is a label's."""
    labels: torch.Tensor
    """Those labels, in the order of `label_mask`."""
    example_indices: torch.Tensor
    """For each label, the number of its example in the batch."""


def batch_tensors(batch: Batch, device: torch.device) -> BatchTensors:
    """The tensors of a batch."""
    import torch

    length = max(map(len, batch))
    shape = (len(batch), length)
    tokens, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    segments, asked = torch.full(shape, PADDING_SEGMENT), torch.zeros(shape, dtype=torch.bool)
    labels: list[int] = []
    rows: list[int] = []
    count = 0
    for index, pack in enumerate(batch):
        size = len(pack)
        line, places, parts, wanted = _flatten_pack(pack)
        tokens[index, :size], positions[index, :size] = torch.tensor(line), torch.tensor(places)
        segments[index, :size] = torch.tensor(parts)
        asked[index, torch.tensor(wanted)] = True
        for end in pack.suffixes:
            labels += end.label
            rows += [count] * len(end.label)
            count += 1
    ahead = torch.ones(length, length, dtype=torch.bool).tril()
    seen = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    mask = (ahead & seen).unsqueeze(1)
    made = (tokens, positions, mask, asked, torch.tensor(labels), torch.tensor(rows))
    return BatchTensors(*(one.to(device) for one in made))


def _flatten_pack(pack: Pack) -> tuple[list[int], list[int], list[int], list[int]]:
    """A pack's tokens, their positions, their segments (0 is the beginning), and where labels are asked for.

    The last token of a label is predicted and never read, but it stands in the line: so every row has its own length.
    """
    line, places, parts = list(pack.prefix), list(range(len(pack.prefix))), [0] * len(pack.prefix)
    wanted: list[int] = []
    for number, end in enumerate(pack.suffixes, start=1):
        first = len(line) + len(end.prompt) - 1
        wanted += range(first, first + len(end.label))
        line += (*end.prompt, *end.label)
        places += range(len(pack.prefix), len(pack.prefix) + len(end))
        parts += [number] * len(end)
    return line, places, parts, wanted


def load_base(folder: Path) -> Any:
    """The base model of a folder of safetensors, in bfloat16. Nothing in it is run, and no network is asked."""
    import torch
    from transformers import AutoModelForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder of weights, with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def label_logits(model: Any, batch: BatchTensors) -> torch.Tensor:
    """Logits where labels are asked for, and nowhere else: the head is the largest matrix of a small model."""
    hidden = model.model(
        input_ids=batch.tokens, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    scores: torch.Tensor = model.lm_head(hidden[batch.label_mask]).float()
    return scores
