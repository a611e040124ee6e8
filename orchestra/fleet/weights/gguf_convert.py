"""The child process that turns a GGUF file into a folder of bfloat16 safetensors: `python -m
orchestra.fleet.weights.gguf_convert GGUF FOLDER`.

A process of its own, because transformers and torch take seconds to import and a gigabyte to run. It says each step in
a
line on standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def convert(gguf: Path, folder: Path) -> None:
    """Reads the quantised weights, makes them plain bfloat16, writes `model.safetensors`, configuration and tokenizer."""
    print("loading transformers and torch", flush=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print("reading the tokenizer", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True)
    print("reading the weights", flush=True)
    model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True)
    model.to(torch.bfloat16)
    # transformers remembers that it read a quantised file, and would write that down although the weights are plain
    # now.
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
