"""The supervisor: starts, watches and stops local vLLM servers."""
