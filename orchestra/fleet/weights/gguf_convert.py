"""Converts a GGUF file into a folder of bfloat16 safetensors: `python -m orchestra.fleet.weights.gguf_convert GGUF
FOLDER`.

It runs in a process of its own, because transformers and torch take seconds to import and a gigabyte of memory. It
prints a line per step.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def convert(gguf: Path, folder: Path) -> None:
    """Dequantizes the weights to bfloat16, and writes `model.safetensors`, configuration and tokenizer."""
    print("loading transformers and torch", flush=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print("reading the tokenizer", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True)
    print("reading the weights", flush=True)
    model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True)
    model.to(torch.bfloat16)
    # transformers keeps the quantization of the file, and would write it to the configuration although the weights are
    # plain now.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = ""
    print("writing bfloat16 safetensors", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
