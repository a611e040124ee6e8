"""One signal ends a command that reads from a pipe without a writer."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from orchestra.cli.files import read_documents
from orchestra.cli.inputs import StdinReader
from orchestra.cli.run.batch_rows import rereadable_file
from orchestra.cli.signals import StopSignal, run_with_signals
from orchestra.cli.text_files import read_text
from tests.cli.processes import PATIENCE, started
from tests.cli.shell import Shell
from tests.cli.stage import GOOD, Simulated, furnish


@pytest.fixture(autouse=True)
def no_gc_callbacks() -> Iterator[None]:
    """Removes the callbacks of the garbage collector: Python ignores what a signal raises inside of them, and
    Hypothesis has one.
    """
    callbacks = list(gc.callbacks)
    gc.callbacks.clear()
    yield
    gc.callbacks.extend(callbacks)


def copied(path: Path) -> Any:
    with rereadable_file(path) as found:
        return found


READS: dict[str, Callable[[Path], Any]] = {
    "text": read_text,
    "documents": read_documents,
    "rows": copied,
}


def ended(read: Callable[[], Any], number: int, path: Path) -> BaseException:
    """The end of a command that is reading from a pipe when a signal arrives. Opening the pipe for writing waits for
    the reader.
    """
    heard: list[bool] = []

    def signalled() -> None:
        with path.open("wb"):
            os.kill(os.getpid(), number)
            heard.append(done.wait(PATIENCE))

    done = threading.Event()
    teller = threading.Thread(target=signalled)

    async def work(stop: StopSignal) -> Any:
        teller.start()
        try:
            return read()
        finally:
            done.set()

    try:
        with pytest.raises((KeyboardInterrupt, typer.Exit)) as caught:
            run_with_signals(work)
    finally:
        done.set()
        teller.join()
    assert heard == [True], "the pipe was still open when the read ended"
    return caught.value


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", READS)
def test_one_signal_ends_a_read_of_a_pipe(how: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    error = ended(lambda: READS[how](path), number, path)
    if number == signal.SIGTERM:
        assert isinstance(error, typer.Exit)
        assert error.exit_code == 143
    else:
        assert isinstance(error, KeyboardInterrupt)


@pytest.mark.parametrize("how", READS)
def test_a_signal_that_breaks_off_no_system_call_ends_a_read_too(how: str, tmp_path: Path) -> None:
    """Like a signal just before the call blocks: here the system delivers it to another thread, because the main one
    blocks it.
    """
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def read() -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        return READS[how](path)

    try:
        assert isinstance(ended(read, signal.SIGTERM, path), typer.Exit)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def test_the_timer_and_its_handler_are_what_they_were_afterwards(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a")
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    read_text(tmp_path / "text")
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_a_read_of_stdin(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Buffer:
        """The signal arrives during the read."""

        def read(self, size: int) -> bytes:
            os.kill(os.getpid(), number)
            return b""

    async def work(stop: StopSignal) -> str:
        return StdinReader().read("-i text=-")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Buffer()))
    with pytest.raises((KeyboardInterrupt, typer.Exit)):
        run_with_signals(work)


def test_a_signal_between_reads_cancels_the_work_as_before() -> None:
    cleaned: list[str] = []

    async def work(stop: StopSignal) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    with pytest.raises(typer.Exit) as caught:
        run_with_signals(work)
    assert (caught.value.exit_code, cleaned) == (143, ["up"])


VERBS = {
    "an input": ("run", "ask", "-i", "question=When?", "-i", "text=@pipe"),
    "all inputs": ("run", "ask", "-i", "@pipe"),
    "documents of a request": ("ask", "When?", "-i", "text=@pipe", "--only", "answerer"),
    "rows": ("batch", "ask", "-i", "pipe", "-o", "out.jsonl"),
    "evidence": ("check", "1889", "--against", "pipe"),
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("verb", VERBS)
def test_one_signal_ends_a_process_that_reads_from_a_pipe(verb: str, number: int, shell: Shell) -> None:
    furnish()
    shell.opener = Simulated({"answerer": GOOD})
    os.mkfifo("pipe")
    process: subprocess.Popen[str] = started(*VERBS[verb])
    try:
        with Path("pipe").open("wb"):  # waits until the process reads
            process.send_signal(number)
            process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    # If a command reads before its work starts, the signal itself ends the process, which a shell also reports as 143.
    assert process.returncode in ((143, -signal.SIGTERM) if number == signal.SIGTERM else (130,))
