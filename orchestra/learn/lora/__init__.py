"""LoRA training: examples, the base model, the training loop, checkpoints and distillation."""

__all__ = [
    "base_model",
    "checkpoint",
    "distillation",
    "examples",
    "loop",
    "model",
    "train",
]
