"""Learn: from rows of an agent's work to an adapter that does it better, by commands that a user runs on data of their own.

Rows become a data set (`data.dataset`), its rows become tokens as in serving (`lora.examples`), and these train a LoRA (`lora.train`).
PyTorch, transformers and peft are imported where they are used: the extra `learn` brings them.
"""
