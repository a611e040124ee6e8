"""The cost of adapters on a CPU: tokens per second of the base model, of one adapter, and of all of them mixed.

    python -m bench.adapters [--fleet laptop] [--adapters 5] [--tokens 64] [--rounds 3] [--at-once 16 32] [--without]
                             [--dedicated] [--unguessed] [--dtype float32] [--quantization none] [--lock FILE]

Starts its own server on the weights of the fleet's first server, with random adapters (ranks 16 and 8 in turn, on all
linear layers), all loaded. The mixes alternate within a round; the table has the best of each, and its ratio to the
base model on the same server. `--without` repeats it on stock vLLM, without Orchestra's plugin. `--dedicated` repeats
it on a server that has the machine to itself (with `--dtype bfloat16`; a server in float32 takes all free cores
anyway). `--unguessed` repeats it without speculative decoding, whose acceptance depends on the text. At the end another
adapter is loaded and called while 32 requests run, and the numbers of answers are printed. `--lock` is held during
measurements. `ONEDNN_MAX_CPU_ISA=AVX2` measures a CPU without bfloat16.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.machine import ROOT, code, now
from orchestra.core import child_process
from orchestra.core.child_process import ChildProcess, ProcessSpec
from orchestra.fleet import config, cpu
from orchestra.fleet.config import LocalServer
from orchestra.fleet.secrets import auth_headers
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.main import KEY_BYTES
from orchestra.fleet.weights import weights
from tests.simulation.lab.noise_adapters import write_noise_adapter

STORY = "Tell story number {number} about a town by the sea, and about the people who live in it."
SENTENCE = (
    "The harbour of the town lies to the north of the old bridge, and the boats come in before the sun goes down. "
)


@dataclass(frozen=True)
class Rate:
    """Tokens per second: decoded (short prompts), decoded per processor second, and prefilled (prompts of about 300
    tokens, one output token).
    """

    written: float = 0.0
    worked: float = 0.0
    read: float = 0.0

    def best(self, other: Rate) -> Rate:
        """Returns the maximum of each: other load on the machine only slows a measurement."""
        return Rate(max(self.written, other.written), max(self.worked, other.worked), max(self.read, other.read))


@dataclass
class Served:
    """A server and the names of its models; the base model first."""

    session: aiohttp.ClientSession
    url: str
    names: list[str]
    group: int
    """The process group of the server."""
    asked: int = 0
    ready_after: float = 0.0
    """Seconds from its start to its first answer."""

    async def ask(self, model: str, prompt: str, tokens: int) -> dict[str, Any]:
        """Requests one completion of that many tokens and returns its usage."""
        body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        async with self.session.post(f"{self.url}/v1/completions", json=body) as reply:
            answer = await reply.json()
            if reply.status != 200:
                raise RuntimeError(f"{reply.status}: {answer}")
            usage: dict[str, Any] = answer["usage"]
            return usage

    def processor_seconds(self) -> float:
        """Returns the processor seconds of the server's processes (fields 14 and 15 of proc(5)'s stat)."""
        ticks = 0
        for place in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = place.read_text("utf-8", "replace").rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12]) if int(fields[2]) == self.group else 0
        return ticks / os.sysconf("SC_CLK_TCK")

    async def rate(self, models: Sequence[str], count: int, tokens: int, filler: str = "") -> tuple[float, float]:
        """Returns prompt tokens and output tokens per second for concurrent requests. Each prompt is new, so caches
        have no effect.
        """
        self.asked += 1
        prompts = [f"{self.asked}.{number} " + filler + STORY.format(number=number) for number in range(count)]
        began = time.perf_counter()
        usages = await asyncio.gather(
            *(self.ask(models[n % len(models)], prompt, tokens) for n, prompt in enumerate(prompts))
        )
        seconds = time.perf_counter() - began
        return sum(u["prompt_tokens"] for u in usages) / seconds, sum(u["completion_tokens"] for u in usages) / seconds

    async def load(self, name: str, folder: Path) -> None:
        """Loads an adapter."""
        async with self.session.post(
            f"{self.url}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)}
        ) as reply:
            if reply.status != 200:
                raise RuntimeError(await reply.text())


@contextlib.contextmanager
def held(lock: Path | None) -> Iterator[None]:
    """Holds a file lock, so that measurements on one machine do not overlap."""
    with contextlib.ExitStack() as stack:
        if lock is not None:
            fcntl.flock(stack.enter_context(lock.open("a")), fcntl.LOCK_EX)
        yield


@contextlib.asynccontextmanager
async def serving(server: LocalServer, weights_folder: Path, stock: bool, log: Path) -> AsyncIterator[Served]:
    """Runs a server, with Orchestra's plugin or as stock vLLM."""
    port = vllm_launch.choose_port(None)
    how = vllm_launch.build_launch(cpu.resolve_auto(server, Folders.from_environment().cache), weights_folder, port)
    command, environment = how.command, dict(how.environment)
    if stock:
        environment["VLLM_PLUGINS"] = ""
        place = command.index("--worker-cls")
        command = (*command[:place], *command[place + 2 :])
    key = secrets.token_urlsafe(KEY_BYTES)
    began = time.perf_counter()
    child = await child_process.start_process(ProcessSpec(command, environment, key=key), log)
    timeout, headers = aiohttp.ClientTimeout(total=900), auth_headers(key)
    try:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=timeout, headers=headers
        ) as session:
            served = Served(session, f"http://127.0.0.1:{port}", [server.model], child.pid)
            await healthy(served, child, log)
            served.ready_after = time.perf_counter() - began
            yield served
    finally:
        await child.stop(15)


async def healthy(served: Served, child: ChildProcess, log: Path) -> None:
    """Waits until the server is healthy."""
    while child.returncode is None:
        with contextlib.suppress(aiohttp.ClientError):
            async with served.session.get(served.url + "/health") as reply:
                if reply.status == 200:
                    return
        await asyncio.sleep(0.5)
    raise RuntimeError("\n".join(child_process.last_lines(log, 20)))


async def measure(served: Served, given: argparse.Namespace) -> dict[tuple[int, str], Rate]:
    """Returns the best of the rounds for each number of concurrent requests and each mix."""
    mixes = {"base": served.names[:1], "one adapter": served.names[1:2], "all mixed": served.names}
    for models in mixes.values():
        await served.rate(models, 2 * len(models), 4)
    best: dict[tuple[int, str], Rate] = {}
    for count in given.at_once:
        for _ in range(given.rounds):
            with held(given.lock):
                for name, models in mixes.items():
                    before = served.processor_seconds()
                    _, written = await served.rate(models, count, given.tokens)
                    worked = count * given.tokens / (served.processor_seconds() - before)
                    read, _ = await served.rate(models, count, 1, SENTENCE * 12)
                    best[count, name] = Rate(written, worked, read).best(best.get((count, name), Rate()))
    return best


async def loads_while_busy(served: Served, folder: Path) -> str:
    """Loads another adapter while 32 requests run, calls it at once, and returns the numbers of answers."""
    running = [
        asyncio.create_task(served.ask(served.names[n % len(served.names)], STORY.format(number=n), 64))
        for n in range(32)
    ]
    await asyncio.sleep(1.0)
    began = time.perf_counter()
    await served.load("late", folder)
    seconds = time.perf_counter() - began
    still = sum(not task.done() for task in running)
    late = await asyncio.gather(*(served.ask("late", STORY.format(number=n), 16) for n in range(4)))
    answers = await asyncio.gather(*running, return_exceptions=True)
    whole = sum(isinstance(answer, dict) and answer["completion_tokens"] == 64 for answer in answers)
    return (
        f"loaded an adapter in {seconds:.2f} s while {still} requests ran: {whole} of 32 answered in full, and "
        f"{len(late)} of 4 by it"
    )


async def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet", default="laptop", help="a file in configs/")
    parser.add_argument("--adapters", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--dedicated", action="store_true")
    parser.add_argument("--unguessed", action="store_true")
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--quantization", choices=("auto", "int8", "none"), default="auto")
    given = parser.parse_args()
    quantization = None if given.quantization == "none" else given.quantization
    changed = {"max_loras": given.adapters + 1, "dtype": given.dtype, "quantization": quantization}
    described = config.read_config(ROOT / "configs" / f"{given.fleet}.yaml")
    server = next(iter(described.local_servers.values())).model_copy(update=changed)
    found = weights.find_weights(server.weights, weights.ModelStore.from_environment())
    if found is None:
        print(f"orchestra fleet start --fleet {given.fleet}   # once, for its weights", file=sys.stderr)
        return 2
    print(f"{now()}, {code()}")
    with tempfile.TemporaryDirectory() as place:
        folders = [
            write_noise_adapter(Path(place) / f"noise{n}", found, n, rank=(16, 8)[n % 2])
            for n in range(given.adapters + 1)
        ]
        ways = [("with the plugin", server, False), ("stock vLLM", server, True)][: 1 + given.without]
        ways += [("dedicated", server.model_copy(update={"dedicated": True}), False)] * given.dedicated
        ways += [("without guesses", server.model_copy(update={"speculative_tokens": 0}), False)] * given.unguessed
        for way, started, stock in ways:
            async with serving(started, found, stock, Path(place) / "log") as served:
                for folder in folders[:-1]:
                    await served.load(folder.name, folder)
                    served.names.append(folder.name)
                best = await measure(served, given)
                precision = cpu.resolve_auto(started, Folders.from_environment().cache)
                print(
                    f"\n{way}, {precision.dtype}, {precision.quantization or 'not quantized'}, {given.adapters} "
                    f"adapters"
                )
                print(f"{given.tokens} tokens each; a server is ready after {served.ready_after:.1f} s\n")
                print(
                    "| at once | requests | written tok/s | of base | by processor time | of base | read tok/s | "
                    "of base |"
                )
                print("|---" * 8 + "|")
                for (count, name), rate in best.items():
                    base = best[count, "base"]
                    pairs = ((rate.written, base.written), (rate.worked, base.worked), (rate.read, base.read))
                    print(
                        f"| {count} | {name} | "
                        + " | ".join(f"{mine:.0f} | {mine / other:.2f}" for mine, other in pairs)
                        + " |"
                    )
                print("\n" + await loads_while_busy(served, folders[-1]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
