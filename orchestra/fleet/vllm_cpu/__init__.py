"""Extensions of vLLM on CPUs: worker, kernels, threads and speculation."""
