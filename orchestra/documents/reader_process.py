"""A process that reads files for this one, with limits of time and memory. It is started again after a failure.

Each request is a line of JSON, `{"path", "source"}`. Each answer is its length in eight bytes and JSON: the content, or
the error. Nothing of it is executed, and the content is validated again.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pydantic import ValidationError

from orchestra.documents.builder import FileContent
from orchestra.documents.errors import DocumentError
from orchestra.documents.readers import READERS, TEXT_READER, reader_key
from orchestra.schema.builtin_models import Document, Table

LENGTH_BYTES = 8
MAX_ANSWER = 512 << 20
"""Maximum bytes of an answer."""
START_SECONDS = 30.0
"""Seconds that the start of the process may take."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What the process may use for one file."""

    seconds: float = 30.0
    memory: int = 2 << 30
    """Address space in bytes."""


class ReaderProcess:
    """The process, started at the first file. Use it as a context: it ends there."""

    def __init__(self, limits: ProcessLimits | None = None) -> None:
        self.limits = limits or ProcessLimits()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def read(self, path: Path, source: str) -> FileContent:
        """Reads a file.

        Raises:
            DocumentError: The error of its reader, or D007 if it takes too long or needs too much memory.
        """
        process = self._process or self._start()
        try:
            answer = self._ask(process, path, source)
        except BaseException:
            self.stop()  # also for Ctrl-C: what the process is doing is not known
            raise
        if "code" in answer:
            raise DocumentError(str(answer["code"]), str(answer["message"]), hint=str(answer["hint"]))
        return decode_content(answer)

    def stop(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        process = subprocess.Popen(  # noqa: S603 - this interpreter, with this module
            [sys.executable, "-P", "-m", __name__, str(self.limits.memory), str(int(self.limits.seconds) + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self._process = process
        return process

    def _ask(self, process: subprocess.Popen[bytes], path: Path, source: str) -> Mapping[str, Any]:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has no pipes")
        request = json.dumps({"path": str(path.absolute()), "source": source}).encode() + b"\n"
        try:
            process.stdin.write(request)
            process.stdin.flush()
            pipe = _DeadlinePipe(process.stdout)
            pipe.read(1, START_SECONDS)  # the process has started, and begins with the file
            length = int.from_bytes(pipe.read(LENGTH_BYTES, self.limits.seconds), "big")
            if length > MAX_ANSWER:
                raise DocumentError("D005", f"{source} has too much content", hint="split it")
            answer = json.loads(pipe.read(length, self.limits.seconds))
        except TimeoutError as error:
            raise DocumentError(
                "D007", f"{source} took longer than {self.limits.seconds:g} s to read", hint="split it"
            ) from error
        except (EOFError, BrokenPipeError) as error:
            process.wait()
            raise _ended(source, process.returncode, self.limits) from error
        return answer if isinstance(answer, dict) else {}


class _DeadlinePipe:
    """Reads exact numbers of bytes from a pipe within a time."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._file = pipe.fileno()

    def read(self, count: int, seconds: float) -> bytes:
        """Raises `TimeoutError`, or `EOFError` if the pipe ends."""
        deadline, parts, missing = time.monotonic() + seconds, [], count
        with selectors.DefaultSelector() as selector:
            selector.register(self._file, selectors.EVENT_READ)
            while missing:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(self._file, min(missing, 1 << 20))
                if not part:
                    raise EOFError
                parts.append(part)
                missing -= len(part)
        return b"".join(parts)


def _ended(source: str, status: int, limits: ProcessLimits) -> DocumentError:
    if status == MEMORY_STATUS:
        return DocumentError(
            "D007", f"{source} needs more than {limits.memory >> 20} MiB of memory to read", hint="split it"
        )
    if status == -signal.SIGXCPU:
        return DocumentError("D007", f"{source} took longer than {limits.seconds:g} s to read", hint="split it")
    return DocumentError(
        "D007", f"the process that read {source} ended with {status}", hint="the file may be broken or hostile"
    )


def encode_content(content: FileContent) -> dict[str, Any]:
    """Returns a content as JSON values."""
    return {
        "document": content.document.model_dump(),
        "tables": [table.model_dump() for table in content.tables],
        "is_table": content.is_table,
    }


def decode_content(value: Mapping[str, Any]) -> FileContent:
    """Returns the content in JSON values. Raises `DocumentError` D007 for others."""
    try:
        return FileContent(
            Document.model_validate(value["document"]),
            tuple(Table.model_validate(table) for table in value["tables"]),
            bool(value["is_table"]),
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise DocumentError("D007", "the reader's answer is not valid", hint="report the file") from error


MEMORY_STATUS = 77
"""Exit status of a process that ran out of memory."""


def _limit(memory: int, seconds: int) -> None:
    """Limits memory and time of this process; it cannot write files."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    used_seconds = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used_seconds + seconds, resource.RLIM_INFINITY))


def _serve(memory: int, seconds: int) -> None:
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints must not disturb the answers
    for line in sys.stdin.buffer:
        _limit(memory, seconds)
        request = json.loads(line)
        output.write(b"\n")
        output.flush()
        path = Path(request["path"])
        try:
            answer = encode_content(READERS.get(reader_key(path), TEXT_READER).read(path, request["source"]))
        except DocumentError as error:
            answer = {"code": error.code, "message": error.message, "hint": error.hint}
        except OSError as error:
            reason = error.strerror or str(error)
            answer = {"code": "C014", "message": f"{request['source']} cannot be read: {reason}", "hint": ""}
        data = json.dumps(answer).encode()
        output.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        output.flush()


if __name__ == "__main__":
    try:
        _serve(int(sys.argv[1]), int(sys.argv[2]))
    except (MemoryError, RecursionError):
        os._exit(MEMORY_STATUS)
