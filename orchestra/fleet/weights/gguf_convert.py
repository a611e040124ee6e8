"""Converts a GGUF file into a folder of bfloat16 safetensors: `python -m orchestra.fleet.weights.gguf_convert GGUF
FOLDER`.

It runs in a process of its own, because transformers and torch take seconds to import and a gigabyte of memory. It
prints a line per step.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from orchestra.fleet.weights.gguf_header import check_gguf

QUANTIZATION_ERROR = 0.15
"""The largest relative difference (Frobenius norm) of two quantized copies of one matrix. It is 0.044 between Q5_0 and
Q8_0 for Qwen2.5-Coder-0.5B; different matrices differ by 1 and more.
"""


def convert(gguf: Path, folder: Path) -> None:
    """Dequantizes the weights to bfloat16, and writes `model.safetensors`, configuration and tokenizer.

    The output matrix is tied to the embeddings if both are copies of one matrix. The output matrix is kept, because it
    is quantized with at least as many bits.
    """
    elements = check_gguf(gguf).elements
    print("loading transformers and torch", flush=True)
    import torch
    import transformers
    from transformers import AutoConfig, AutoTokenizer

    loader: Any = transformers.AutoModelForCausalLM  # its methods have no types
    print("reading the configuration", flush=True)
    place: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    with torch.device("meta"):  # without memory
        config = loader.from_config(AutoConfig.from_pretrained(str(gguf.parent), **place))
    if (parameters := sum(parameter.numel() for parameter in config.parameters())) > elements:
        raise SystemExit(f"the header describes {parameters:,} parameters, and the file has {elements:,}")
    print("reading the tokenizer", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **place)
    print("reading the weights", flush=True)
    # Later versions of transformers keep the blocks of the file if a kernel for them can be fetched.
    dense = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)} if "GgufConfig" in dir(transformers) else {}
    )
    model = loader.from_pretrained(str(gguf.parent), dtype=torch.bfloat16, **place, **dense)
    # transformers keeps the quantization of the file, and would write it to the configuration although the weights are
    # plain now.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = ""
    embeddings, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embeddings is not output and is_copy(embeddings, output):
        print("tying the output matrix to the embeddings", flush=True)
        model.set_input_embeddings(torch.nn.Embedding(*output.shape, _weight=output))
        model.config.tie_word_embeddings = True
        model.tie_weights()
    print("writing bfloat16 safetensors", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def is_copy(embeddings: Any, output: Any) -> bool:
    """Returns whether two matrices differ by no more than the error of their quantization."""
    import torch

    if embeddings.shape != output.shape:
        return False
    with torch.no_grad():
        difference = torch.linalg.vector_norm(embeddings - output, dtype=torch.float32)
        return bool(difference <= QUANTIZATION_ERROR * torch.linalg.vector_norm(output, dtype=torch.float32))


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
