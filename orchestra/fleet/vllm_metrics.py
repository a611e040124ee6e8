"""Parses the load of a vLLM server: the Prometheus text of `/metrics`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CACHE_TOKENS = re.compile(r'[{,]kv_cache_size_tokens="(\d{1,15})"')


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """A reading of `/metrics`. It is delayed, so a sender also counts its own requests."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    """Share of the key-value cache in use, in [0, 1]."""
    finished_requests: int = 0
    """Requests that succeeded since the start."""
    total_tokens: int = 0
    """Prompt and output tokens since the start."""
    output_tokens: int = 0
    """Output tokens since the start."""
    prefix_queries: int = 0
    prefix_hits: int = 0
    draft_tokens: int = 0
    """Draft tokens since the start."""
    accepted_tokens: int = 0
    """Draft tokens that the model accepted."""
    cache_tokens: int = 0
    """Capacity of the key-value cache in tokens; 0 if unknown."""

    @property
    def busy(self) -> bool:
        """Whether there is a request."""
        return self.running + self.waiting > 0

    @property
    def progress(self) -> tuple[int, int]:
        """Increases while the server works."""
        return (self.total_tokens, self.finished_requests)


def parse_metrics(text: str) -> ServerLoad:
    """Returns the load of a Prometheus text. Missing values are zero."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("vllm:cache_config_info{") and (match := _CACHE_TOKENS.search(line)) is not None:
            sums["vllm:cache_tokens"] = float(match[1])
        elif line.startswith("vllm:"):
            name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
            try:
                value = float(rest.rpartition(" ")[2])
            except ValueError:
                continue
            if value == value:  # not NaN
                sums[name] = sums.get(name, 0.0) + value

    def count(*names: str) -> int:
        return int(sum(sums.get(f"vllm:{name}", 0.0) for name in names))

    return ServerLoad(
        running=count("num_requests_running"),
        waiting=count("num_requests_waiting"),
        kv_cache_usage=sums.get("vllm:kv_cache_usage_perc", 0.0),
        finished_requests=count("request_success_total"),
        total_tokens=count("prompt_tokens_total", "generation_tokens_total"),
        output_tokens=count("generation_tokens_total"),
        prefix_queries=count("prefix_cache_queries_total"),
        prefix_hits=count("prefix_cache_hits_total"),
        draft_tokens=count("spec_decode_num_draft_tokens_total"),
        accepted_tokens=count("spec_decode_num_accepted_tokens_total"),
        cache_tokens=count("cache_tokens"),
    )
