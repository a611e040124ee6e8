"""Training, evaluation, certification and promotion of agents on a user's own data.

A data set (`data.dataset`) is encoded as serving encodes a call (`lora.examples`), and a LoRA is trained on it
(`lora.train`). Agents that run in this process are trained by `encoders`, `classical`, `crf` and `linear`. `evaluation`
measures agents, `certification` prepares certificates, and `promotion` replaces what an agent has learnt. PyTorch,
transformers and peft are imported inside functions; the extra `learn` installs them.
"""

__all__ = [
    "batching",
    "calibration",
    "certification",
    "classical",
    "compatibility",
    "crf",
    "data",
    "encoders",
    "evaluation",
    "linear",
    "lora",
    "lora_adapter",
    "loss_curve",
    "promotion",
    "run_agent",
    "training_lock",
]
