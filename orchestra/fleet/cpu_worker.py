"""The worker of a CPU server: requests with a seed end no server, norms are those of vLLM's kernel, guesses those of `cpu_drafts`, and
nobody connects to its internal ports (`cpu_sockets`).

Imported inside vLLM's worker only (`--worker-cls`). vLLM 0.32 draws a token for every request of a step and throws away those of
requests whose prompt is not read to its end yet. It then winds their generators back by an offset, which only generators on a GPU
have: on a CPU one such request (a seed, a temperature, a prompt read in pieces) ends the worker, and with it the server. Here
those generators are put aside while the tokens are drawn. So they stay where they were, and what is drawn by a seed does not depend
on how its prompt was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from vllm.config import CompilationMode
from vllm.v1.worker.cpu_worker import CPUWorker

from orchestra.fleet import cpu_drafts, cpu_norm, cpu_sockets


class SeededWorker(CPUWorker):  # type: ignore[misc]  # vLLM has no types here
    """vLLM's worker for CPUs."""

    def init_device(self) -> None:
        """Before there is a model, whose layers keep the functions that they find. What is compiled fuses its norms itself."""
        if self.vllm_config.compilation_config.mode == CompilationMode.NONE:
            cpu_norm.install()
        with nullcontext() if self.vllm_config.parallel_config.world_size > 1 else cpu_sockets.refusing():
            super().init_device()
        cpu_drafts.install(self.model_runner, self.vllm_config)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Draws a token for each request of this step."""
        runner = self.model_runner
        batch = runner.input_batch
        unread = runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0]
        with aside(batch.generators, map(int, unread)):
            return super().sample_tokens(grammar_output)


@contextmanager
def aside(generators: dict[int, Any], rows: Iterable[int]) -> Iterator[None]:
    """While it lasts these rows of a batch have no generator of their own."""
    taken = {row: generators.pop(row) for row in rows if row in generators}
    try:
        yield
    finally:
        generators.update(taken)
