"""The fleet: model servers on this machine and elsewhere. It implements the protocol `Workers` of
`orchestra.core.protocols`.

A call takes this path: `dispatch` chooses the servers (`server_selection`), loads the adapter (`adapters`), and hands
the request to `sender`, which queues it (`scheduling`, `concurrency`), sends it (`http`) and retries it. `supervisor`
is the process that starts and watches local vLLM servers. `weights` fetches their weights. `vllm_cpu` extends vLLM on
CPUs. `local_workers` runs tools and in-process models. The modules below may be imported by other packages; the rest is
private to the fleet. Nothing is imported here, because `config` and `dispatch` are slow to load.
"""

__all__ = [
    "adapters",
    "call_estimates",
    "card_versions",
    "concurrency",
    "config",
    "cpu",
    "dispatch",
    "ensemble_calls",
    "local_workers",
    "model_digests",
    "progress",
    "secrets",
    "sender",
    "server_selection",
    "status",
    "supervisor",
    "vllm_cpu",
    "vllm_metrics",
    "weights",
]
