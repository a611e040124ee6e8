"""Extensions of vLLM on CPUs: worker, kernels, threads and speculation.

vLLM loads `plugin` and `worker` in its own processes. The other modules need PyTorch and vLLM, so they are imported
there only.
"""

__all__ = [
    "linear",
    "lora_kernel",
    "lora_product",
    "ngram_cache",
    "plugin",
    "product_timing",
    "rms_norm",
    "socket_filter",
    "speculation",
    "thread_policy",
    "worker",
]
