"""HTTP clients of model servers: the pool of connections, the OpenAI protocol, and the addresses of local servers."""

__all__ = [
    "addresses",
    "client",
    "connection",
    "model_server",
    "openai_protocol",
]
