"""Model weights: download, conversion, storage, and the safety checks of adapters and encoders."""

__all__ = [
    "adapter_checks",
    "download",
    "encoders",
    "gguf_convert",
    "gguf_header",
    "safetensors",
    "weights",
]
