"""vLLM's worker of a CPU server, with corrections.

It installs the kernels of `rms_norm` and `linear`, the ranks of `token_ranks`, the drafts of `speculation`, the threads
of `thread_policy` and the closed ports of `socket_filter`, and corrects seeded sampling. Imported inside vLLM's worker
only (`--worker-cls`).

vLLM 0.32 samples a token for every request of a step, and discards those of requests whose prompt is not complete. It
then sets their generators back by an offset, which only generators on a GPU have. On a CPU one such request (a seed, a
temperature, a prompt in pieces) crashes the worker, and with it the server. Here those generators are set aside during
sampling. So they keep their state, and the result of a seed does not depend on how the prompt was split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import set_num_threads  # vLLM replaces the name in torch by a function that only warns
from vllm.config import CompilationMode
from vllm.v1.worker.cpu_worker import CPUWorker

from orchestra.fleet.supervisor.vllm_launch import QUANTIZATION_KEY, THREADS_KEY
from orchestra.fleet.vllm_cpu import linear, rms_norm, socket_filter, speculation, token_ranks
from orchestra.fleet.vllm_cpu.thread_policy import StepThreads, ThreadPolicy, has_scheduler_statistics


class SeededWorker(CPUWorker):  # type: ignore[misc]  # vLLM has no types here
    """vLLM's worker for CPUs, with the corrections of this package."""

    def init_device(self) -> None:
        """Installs the corrections before the model is loaded, because layers keep their functions. Compiled models
        fuse their own norms.
        """
        if self.vllm_config.compilation_config.mode == CompilationMode.NONE:
            rms_norm.install()
        with nullcontext() if self.vllm_config.parallel_config.world_size > 1 else socket_filter.filter_new_sockets():
            super().init_device()
        speculation.install(self.model_runner, self.vllm_config)
        token_ranks.install()
        if self.vllm_config.lora_config is not None:
            from orchestra.fleet.vllm_cpu import lora_kernel

            lora_kernel.compile_kernel(self.model_config.dtype)
        self._threads: StepThreads | None = None
        if self.model_config.dtype == torch.float32:
            linear.install(int8=self.vllm_config.additional_config.get(QUANTIZATION_KEY) == "int8")
            # Without scheduler statistics a step cannot tell whether its threads have cores, so it uses one thread.
            if (
                max_threads := int(self.vllm_config.additional_config.get(THREADS_KEY, 1))
            ) > 1 and has_scheduler_statistics():
                self._threads = StepThreads(ThreadPolicy(max_threads), set_num_threads)

    def execute_model(self, scheduler_output: Any) -> Any:
        """Computes a step up to the logits."""
        if self._threads is not None:
            self._threads.begin()
        return super().execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Samples a token for each request of this step."""
        tokens = self._sample(grammar_output)
        if self._threads is not None:
            self._threads.end()
        return tokens

    def _sample(self, grammar_output: Any) -> Any:
        runner = self.model_runner
        batch = runner.input_batch
        discarded_rows = runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0]
        with without_generators(batch.generators, map(int, discarded_rows)):
            return super().sample_tokens(grammar_output)


@contextmanager
def without_generators(generators: dict[int, Any], rows: Iterable[int]) -> Iterator[None]:
    """Removes the generators of some rows of a batch inside the block."""
    removed_generators = {row: generators.pop(row) for row in rows if row in generators}
    try:
        yield
    finally:
        generators.update(removed_generators)
