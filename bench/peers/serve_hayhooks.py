# mypy: ignore-errors
# The library is installed in a separate environment, so types are unknown here.
"""Hayhooks with the graph of `bench.server` as a pipeline: serve_hayhooks.py FOLDER PORT."""

import os
import sys
from pathlib import Path

WRAPPER = """
import asyncio

from hayhooks import BasePipelineWrapper
from haystack import Pipeline, component

CALL_SECONDS = 0.02
PARENTS = [[], [0], [0], [0], [1, 2, 3], [4], [4], [5, 6]]


@component
class Node:
    def __init__(self, parents: list[int]):
        component.set_input_types(self, **({f"p{one}": int for one in parents} or {"go": int}))
        component.set_output_types(self, out=int)

    def run(self, **given):
        raise NotImplementedError

    async def run_async(self, **given):
        await asyncio.sleep(CALL_SECONDS)
        return {"out": 1}


class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None:
        self.pipeline = Pipeline()
        for node, parents in enumerate(PARENTS):
            self.pipeline.add_component(f"n{node}", Node(parents))
        for node, parents in enumerate(PARENTS):
            for parent in parents:
                self.pipeline.connect(f"n{parent}.out", f"n{node}.p{parent}")

    async def run_api_async(self, text: str) -> str:
        await self.pipeline.run_async({"n0": {"go": 1}}, concurrency_limit=10_000)
        return "yes"
"""

if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), sys.argv[2]
    (folder / "pipelines" / "diamond").mkdir(parents=True)
    (folder / "pipelines" / "diamond" / "pipeline_wrapper.py").write_text(WRAPPER)
    os.environ["LOG"] = "ERROR"
    command = Path(sys.executable).with_name("hayhooks")
    folders = ["--pipelines-dir", str(folder / "pipelines")]
    os.execv(command, [str(command), "run", "--host", "127.0.0.1", "--port", port, *folders])
