"""Traces a real run and prints the files on the way of a request: `python -m tests.architecture.request_path`.

The trace runs the commands `orchestra run`, `orchestra ask` and `orchestra validate` in this process. A simulated vLLM
server answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import orchestra
from orchestra.cli.main import build_app
from orchestra.fleet.http.client import HttpClient
from orchestra.testing import SimulatedRequest, SimulatedServer

PACKAGE = Path(orchestra.__file__).parent
FILES = {
    "orchestra.toml": 'fleet = "one"\n',
    "configs/one.yaml": """\
schema: orchestra/fleet/v1
name: one
servers: {{one: {{endpoint: "{url}/v1", model: m, max_model_len: 1000, label: restricted}}}}
models: {{base: one}}
""",
    "agents/writer/agent.yaml": """\
schema: orchestra/v1
name: writer
description: Writes one line.
model: base
input: {{topic: str}}
output: str
max_output: 20
""",
    "agents/writer/prompt.md": "Write a line about {{{{ topic }}}}.\n",
    "agents/router/agent.yaml": """\
schema: orchestra/v1
name: router
description: Plans.
model: base
input: {{request: str, skills: str, values: str, plan: str, grammar: str}}
output: str
grammar: grammar
max_output: 100
""",
    "agents/router/prompt.md": "Plan {{{{ request }}}}\n{{{{ skills }}}}\n{{{{ values }}}}\nSo far: {{{{ plan }}}}\n",
    "workflows/line.yaml": """\
schema: orchestra/v1
name: line
input: {{topic: str}}
output: ${{text}}
nodes:
  text: {{agent: writer, with: {{topic: "${{input.topic}}"}}}}
""",
}


PLAN = ('s1 = writer(topic="tea")', "return s1")
"""The plan that the simulated server gives to the router."""


ASK = ("ask", "Write a line about tea.", "--only", "writer")


def answer(request: SimulatedRequest) -> str:
    """Answers the router with the next line of the plan, and the writer with a line."""
    text = str(request.body)
    return PLAN["s1 = " in text.partition("So far:")[2]] if "So far:" in text else "A line."


def file_of(frame: FrameType) -> str:
    """The path of a frame's file in the package; empty for a file of another package."""
    path = Path(frame.f_code.co_filename)
    return str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else ""


def stack(frame: FrameType | None) -> list[str]:
    """The files of the package on a call stack, the outermost first."""
    files = []
    while frame is not None:
        if name := file_of(frame):
            files.append(name)
        frame = frame.f_back
    return files[::-1]


class Trace:
    """The files on the way to the first request, across tasks."""

    def __init__(self) -> None:
        self.path: list[str] = []
        """The files in the order in which they were entered, each once."""
        self._created_by: dict[int, list[str]] = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records where tasks are created, and stops at the first HTTP request."""
        create, exchange = asyncio.BaseEventLoop.create_task, HttpClient.exchange

        def create_task(loop: Any, coroutine: Any, **options: Any) -> Any:
            files = self._files(sys._getframe(1))
            task = create(loop, coroutine, **options)
            self._created_by[id(task)] = files
            return task

        async def first_exchange(client: HttpClient, *arguments: Any, **options: Any) -> Any:
            request = next((one for one in arguments if hasattr(one, "path")), options.get("request"))
            if not self.path and "completions" in str(getattr(request, "path", "")):
                self.path = list(dict.fromkeys([*self._files(sys._getframe(1)), "fleet/http/client.py"]))
            return await exchange(client, *arguments, **options)

        with (
            mock.patch.object(asyncio.BaseEventLoop, "create_task", create_task),
            mock.patch.object(HttpClient, "exchange", first_exchange),
        ):
            yield

    def _files(self, frame: FrameType | None) -> list[str]:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        return [*self._created_by.get(id(task), ()), *stack(frame)]


class Reentries:
    """Calls that go back into a file which is on the stack already, below another file: by call site, in a package."""

    def __init__(self, package: str) -> None:
        self.sites: dict[tuple[str, int, str], int] = {}
        self._package = package

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """A profile function, for `sys.setprofile`."""
        if event != "call" or not (callee := file_of(frame)).startswith(self._package):
            return
        caller = frame.f_back
        if caller is None or not (source := file_of(caller)) or source == callee:
            return
        if callee in stack(caller.f_back):
            site = (source, caller.f_lineno, callee)
            self.sites[site] = self.sites.get(site, 0) + 1


@contextlib.contextmanager
def project() -> Iterator[Path]:
    """A project in a folder of its own, whose fleet is a simulated server in another thread."""
    ready, stop = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with SimulatedServer("m", answer=answer) as server:
            found.append(server.url)
            ready.set()
            while not stop.is_set():  # noqa: ASYNC110 (another thread sets it)
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in FILES.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text.format(url=found[0]))
        environment = {
            "ORCHESTRA_TRUST": "1",
            **{f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CONFIG", "STATE", "CACHE")},
        }
        try:
            with mock.patch.dict("os.environ", environment), contextlib.chdir(folder):
                yield folder
        finally:
            stop.set()
            thread.join()


def command(*words: str) -> str:
    """Runs a command of the CLI in this process and returns its output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        build_app(first=words[0])(list(words), prog_name="orchestra")
    return output.getvalue()


def trace_run() -> tuple[list[str], str]:
    """The files from `orchestra run line` to the request to the model, and the output of the command."""
    trace = Trace()
    with project(), trace.recording():
        output = command("run", "line", "-i", "topic=tea")
    return trace.path, output


def trace_compilation(package: str = "workflows/compile") -> Reentries:
    """The calls that go back into a file of the compiler while a shipped workflow is compiled."""
    reentries = Reentries(package)
    with project():
        command("validate", "support_desk")  # imports happen here
        sys.setprofile(reentries)
        try:
            command("validate", "support_desk")
        finally:
            sys.setprofile(None)
    return reentries


def trace_ask() -> tuple[list[str], str]:
    """The files from `orchestra ask` to the request to the router's model, and the output of the command.

    Without the cache of plans: a callback of the event loop continues after it is read, and has no stack.
    """
    trace = Trace()
    with project(), trace.recording():
        output = command(*ASK, "--no-cache")
    return trace.path, output


def trace_planning(package: str = "") -> Reentries:
    """The calls that go back into a file of a package while `orchestra ask` plans a request and runs the plan.

    The plan may use one agent. With all capabilities, `ask` also compiles the packaged workflows: `trace_compilation`
    counts what the compiler does.
    """
    reentries = Reentries(package)
    with project():
        command(*ASK)  # imports happen here
    with project():  # has no stored plan
        sys.setprofile(reentries)
        try:
            command(*ASK)
        finally:
            sys.setprofile(None)
    return reentries


def main() -> None:
    """Prints the paths of a workflow and of a request, and the re-entries of planning and of the compiler."""
    for words, (path, _) in (("run", trace_run()), ("ask", trace_ask())):
        print(f"from `orchestra {words}` to the HTTP request: {len(path)} files")
        for number, name in enumerate(path, 1):
            print(f"  {number:2} {name}")
    for what, traced in (("planning by `orchestra ask`", trace_planning()), ("compilation", trace_compilation())):
        print(f"{what}: {len(traced.sites)} call sites go back into a file that is on the stack")
        for (source, line, callee), count in sorted(traced.sites.items()):
            print(f"  {source}:{line} -> {callee} ({count} times)")


if __name__ == "__main__":
    main()
