"""A tiny language model with a tokenizer and a chat template, as a folder of weights; and an agent to train."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from tests.cli.shell import shell

__all__ = ["shell"]

TEXT = (
    "question answer passage null Ada Lovelace wrote notes in 1843 the what who when { } : , "
    "<|im_start|> <|im_end|> user assistant"
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CARD = """\
name: finder
description: Finds words of a passage.
input: {question: str, context: str}
output: {answer: Quote | null}
evidence: context
max_output: 64
"""
PROMPT = "{{ context }}\n\nQuestion: {{ question }}\n"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def write_tiny(folder: Path, family: str = "llama") -> Path:
    """Writes a random model of a family (`model_type`) with a tokenizer."""
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    words.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    made: Any = transformers.PreTrainedTokenizerFast  # transformers has no types for it
    fast = made(tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    loader: Any = transformers.AutoModelForCausalLM
    loader.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Limits PyTorch to one thread, also for fixtures: faster for so small a model, and deterministic. Tests that do
    not use it run without it.
    """
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    """An agent in a folder."""
    return make_card(tmp_path)


def make_card(place: Path, text: str = CARD, prompt: str = PROMPT) -> Card:
    """Writes an agent with this `agent.yaml` under `place`."""
    folder = place / "agents" / "finder"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(text, "utf-8")
    (folder / "prompt.md").write_text(prompt, "utf-8")
    return Card.load(folder)
