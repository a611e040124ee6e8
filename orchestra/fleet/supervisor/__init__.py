"""The supervisor: a process that starts, watches and stops local vLLM servers.

`main` runs it, `client` talks to it, `messages` are their protocol, `server` manages one vLLM process.
"""

__all__ = [
    "auth_middleware",
    "client",
    "folders",
    "liveness",
    "main",
    "messages",
    "port_owner",
    "server",
    "vllm_launch",
]
