"""LoRA training: examples, loop, checkpoints and distillation."""
