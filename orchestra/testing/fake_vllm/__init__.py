"""A simulated vLLM server over HTTP."""
