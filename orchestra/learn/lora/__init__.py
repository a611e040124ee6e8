"""LoRA training: examples, the base model, the training loop, checkpoints and distillation."""
