"""The supervisor: a process that starts, watches and stops local vLLM servers.

`main` runs it, `client` sends requests to it, `messages` are their protocol, `server` manages one vLLM process,
`memory_budget` decides which servers fit in the memory.
"""

__all__ = [
    "auth_middleware",
    "client",
    "folders",
    "liveness",
    "main",
    "memory_budget",
    "messages",
    "port_owner",
    "server",
    "vllm_launch",
]
