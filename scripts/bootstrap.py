"""Sets up `.venv`: `base` (the library and its tools) or `cpu` (with the local fleet: vLLM on a CPU, and its weights).

Standard library only; make runs it. It first reports the download size, installs only what `requirements/*.lock` pins,
resumes an interrupted installation, and returns in well under a second if nothing has changed.

    python3 scripts/bootstrap.py base cpu
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - any Python may run this script; the code below needs 3.11
    sys.exit(
        f"Orchestra needs Python 3.11, 3.12 or 3.13; {sys.executable} is Python "
        f"{sys.version_info[0]}.{sys.version_info[1]}.\n"
        "  Debian, Ubuntu:   apt install python3 python3-venv\n"
        "  installed apart:  make PYTHON=/path/to/python3.11 ..."
    )

import argparse
import contextlib
import hashlib
import json
import os
import platform
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = "orchestra-setup.json"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""The index of PyTorch's `+cpu` wheels; used only if pip's own configuration does not find them."""

SLACK = 300_000_000
"""Bytes to leave free beside what is installed: pip unpacks through a temporary folder."""

BATCH_BYTES, BATCH_PINS = 50_000_000, 30
"""Limits of one call of pip: completed calls stay installed after a failure."""


class Trouble(Exception):
    """An error that the user can fix; the message says how."""


@dataclass(frozen=True)
class Pin:
    """One package of a lock: its version, the digest of its wheel (none if platforms differ), its bytes to download and
    on disk.
    """

    name: str
    version: str
    sha256: str
    download: int
    disk: int

    def requirement(self, hashed: bool) -> str:
        return f"{self.name}=={self.version}" + (f" --hash=sha256:{self.sha256}" if hashed and self.sha256 else "")


PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?: --hash=sha256:(?P<sha>[0-9a-f]{64}))?\s+# (?P<download>\d+) "
    r"(?P<disk>\d+)$"
)


def read_lock(path: Path) -> list[Pin]:
    """Reads the pins of a lock; raises Trouble for an invalid line."""
    pins = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = PIN.match(line)
        if not match:
            raise Trouble(f"{path.name}:{number} is not a pin: {line!r}\n  make lock  writes the locks anew")
        pins.append(
            Pin(match["name"], match["version"], match["sha"] or "", int(match["download"]), int(match["disk"]))
        )
    return pins


def canonical(name: str) -> str:
    """Returns the normalised name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Venv:
    """The virtual environment of this checkout."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.path / STAMP

    def site_packages(self) -> Path | None:
        return next(iter(self.path.glob("lib/python3.*/site-packages")), None)

    def installed(self) -> dict[str, str]:
        """Returns the installed packages by normalised name, from the names of the metadata folders."""
        site = self.site_packages()
        found = (
            entry.name[: -len(".dist-info")].rpartition("-") for entry in (site.glob("*.dist-info") if site else ())
        )
        return {canonical(name): version for name, _, version in found}

    def make(self) -> None:
        """Creates it; raises Trouble if this Python has no venv module."""
        print(f"  making {self.path.name} with Python {platform.python_version()} ({sys.executable})", flush=True)
        done = subprocess.run([sys.executable, "-m", "venv", str(self.path)], capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(self.path, ignore_errors=True)
            said = (done.stdout + done.stderr).strip()
            raise Trouble(
                f"{said}\nThis Python cannot make a virtual environment.\n"
                f"  Debian, Ubuntu: apt install python3-venv (or python3.{sys.version_info[1]}-venv), then the "
                f"same command again"
            )


def lock_of(name: str) -> Path:
    """Returns the lock of a set."""
    return ROOT / "requirements" / f"{name}.lock"


def digest(venv: Venv, name: str) -> str:
    """Returns the digest of everything that a set's installation depends on; while it is unchanged, nothing is done."""
    seen = hashlib.sha256(
        f"{ROOT}\0{platform.python_version() if not venv.python.exists() else venv.python.resolve()}".encode()
    )
    for path in (lock_of(name), ROOT / "pyproject.toml"):
        seen.update(path.name.encode() + b"\0" + path.read_bytes())
    return seen.hexdigest()


def read_stamp(venv: Venv) -> dict[str, str]:
    try:
        stamp = json.loads(venv.stamp.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def size(count: int) -> str:
    """Returns a human-readable size: `93 MB`, `2.4 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def span(seconds: float) -> str:
    """Returns a human-readable duration: `40 s`, `2 min 10 s`."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def check_machine(sets: Sequence[str]) -> None:
    """Raises Trouble if the machine cannot run the requested sets."""
    if "cpu" in sets and (platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64")):
        raise Trouble(
            f"The local CPU fleet is for Linux on x86-64; this is {platform.system()} on {platform.machine()}.\n"
            "  Everything else runs here: make setup-base, then set the address of any OpenAI-compatible server\n"
            "  (Ollama, llama.cpp, vLLM, a hosted one) in configs/endpoint.yaml. See docs/how-to/fleet.md."
        )
    if sys.version_info >= (3, 14):
        raise Trouble(
            f"The pinned packages have wheels for Python 3.11, 3.12 and 3.13, not for {platform.python_version()}.\n"
            "  make PYTHON=python3.13 ...  (or 3.11, 3.12)"
        )


def check_room(venv: Venv, need: int) -> None:
    """Raises Trouble if the disk is too full."""
    free = shutil.disk_usage(venv.path).free
    if free < need + SLACK:
        raise Trouble(
            f"The disk of {venv.path.parent} has {size(free)} free; this needs {size(need + SLACK)}.\n"
            "  Free some space (pip cache purge empties pip's cache) and run the same command again: it goes on "
            "where it stopped."
        )


class Progress:
    """One status line on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, pins: Sequence[Pin]) -> None:
        self.count, self.fetch = len(pins), sum(pin.download for pin in pins)
        self.work, self.start = sum(map(effort, pins)), time.monotonic()
        self.done: list[Pin] = []
        self.terminal, self.shown, self.width = sys.stdout.isatty(), self.start, 0

    def show(self, running: Sequence[Pin] = (), *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self.shown < (0.2 if self.terminal else 10):
            return
        self.shown = now
        done = [*self.done, *running]
        share = sum(map(effort, done)) / self.work if self.work else 1.0
        left = f"about {span((now - self.start) * (1 - share) / share)} left" if 0.02 < share < 1 else ""
        line = (
            f"  [{len(done):>3}/{self.count}]  {size(sum(pin.download for pin in done)):>7} of {size(self.fetch)}  "
            f"{left}"
        )
        if self.terminal:
            print("\r" + line.ljust(self.width), end="", flush=True)
            self.width = len(line)
        else:
            print(line.rstrip(), flush=True)

    def end(self) -> None:
        print(
            ("\r" if self.terminal else "") + f"  done in {span(time.monotonic() - self.start)}".ljust(self.width),
            flush=True,
        )


def effort(pin: Pin) -> float:
    """Returns the relative duration of a package, in bytes to download: unpacking costs about a third of downloading,
    and each package a constant.
    """
    return pin.download + pin.disk / 3 + 1_000_000


def batches(pins: Sequence[Pin]) -> Iterator[list[Pin]]:
    """Returns the pins of each call of pip: small ones together, and those without a digest separately, because pip
    needs digests for all or none.
    """
    for group in ([pin for pin in pins if pin.sha256], [pin for pin in pins if not pin.sha256]):
        batch: list[Pin] = []
        for pin in group:
            if batch and (len(batch) == BATCH_PINS or sum(p.download for p in batch) + pin.download > BATCH_BYTES):
                yield batch
                batch = []
            batch.append(pin)
        if batch:
            yield batch


def hashes_hold() -> bool:
    """Returns whether the digests of the locks are those of the wheels that pip selects here (CPython 3.11, Linux,
    x86-64, a current glibc).
    """
    libc, version = platform.libc_ver()
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return (
        platform.python_implementation() == "CPython"
        and sys.version_info[:2] == (3, 11)
        and platform.system() == "Linux"
        and platform.machine() == "x86_64"
        and libc == "glibc"
        and numbers >= [2, 34]
    )


def run_pip(venv: Venv, arguments: Sequence[str], progress: Progress, batch: Sequence[Pin]) -> tuple[int, str]:
    """Runs pip with progress; returns its exit status and its output."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [str(venv.python), "-m", "pip", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    said: list[str] = []
    fetched = 0
    try:
        while True:
            try:
                line = lines.get(timeout=0.5)
            except queue.Empty:
                progress.show(batch[: fetched // 2])
                continue
            if line is None:
                break
            said.append(line)
            fetched += line.startswith("Collecting ")
            progress.show(batch[: fetched // 2])
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    return process.wait(), "".join(said)


AGAIN = "run the same command again: it goes on where it stopped."

FAILURES = (
    ("No space left", "The disk is full.", f"Free some space, also in {tempfile.gettempdir()}, and {AGAIN}"),
    (
        "DO NOT MATCH THE HASHES",
        "A package is not the one that the lock pins; nothing of this batch was installed.",
        "Find out why before you go on.",
    ),
    (
        (
            "NewConnectionError|NameResolution|failure in "
            "name|unreachable|ConnectTimeout|ReadTimeout|ProxyError|from versions: none"
        ),
        "The package index cannot be reached.",
        f"Check the network and pip's configuration (pip config list), then {AGAIN}",
    ),
    (
        "No matching distribution",
        f"A pinned package has no wheel for Python {platform.python_version()} on {platform.machine()}.",
        "make PYTHON=python3.11 ...  uses the Python that the locks were made with.",
    ),
)
"""Patterns of pip's output, their meaning, and what to do; the first match is used."""


def explain(said: str, batch: Sequence[Pin]) -> str:
    """Explains a failure of pip, with what to do about it."""
    tail = "\n".join("  | " + line for line in said.strip().splitlines()[-12:])
    names = ", ".join(pin.name for pin in batch[:4]) + (", ..." if len(batch) > 4 else "")
    fits = ((meaning, hint) for pattern, meaning, hint in FAILURES if re.search(pattern, said))
    meaning, hint = next(fits, (f"pip could not install {names}.", AGAIN.capitalize()))
    return f"{meaning}\n{tail}\n  {hint}"


def install(venv: Venv, pins: Sequence[Pin]) -> None:
    """Installs exactly the pins; raises Trouble."""
    progress, hashed = Progress(pins), hashes_hold()
    for batch in batches(pins):
        with tempfile.TemporaryDirectory(prefix="orchestra-setup-") as folder:
            wanted = Path(folder) / "requirements.txt"
            wanted.write_text("".join(pin.requirement(hashed) + "\n" for pin in batch), "utf-8")
            arguments = [
                "install",
                "--no-deps",
                "--no-compile",
                "--only-binary=:all:",
                "--progress-bar=off",
                "-r",
                str(wanted),
            ]
            status, said = run_pip(venv, arguments, progress, batch)
            if status != 0 and "No matching distribution" in said and any("+cpu" in pin.version for pin in batch):
                status, said = run_pip(venv, [*arguments, "--extra-index-url", TORCH_INDEX], progress, batch)
        if status != 0:
            print()
            raise Trouble(explain(said, batch))
        progress.done += batch
        progress.show(at_once=True)
    progress.end()


def install_project(venv: Venv) -> None:
    """Installs the checkout itself, editable."""
    arguments = ["install", "--no-deps", "--no-build-isolation", "--quiet", "--editable", str(ROOT)]
    done = subprocess.run(
        [str(venv.python), "-m", "pip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise Trouble(f"The checkout could not be installed.\n{(done.stdout + done.stderr).strip()}")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds a lock, so that two calls do not install into one environment."""
    if sys.platform == "win32":
        raise Trouble(
            "This script is for Linux and macOS.\n"
            "  On Windows: pip install . in this folder, then orchestra demo --endpoint URL; or WSL."
        )
    import fcntl  # not available on Windows

    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  another setup of this checkout is running; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def set_up(venv: Venv, sets: Sequence[str]) -> None:
    """Brings the environment to the pins of the named locks."""
    check_machine(sets)
    stamp = read_stamp(venv)
    if venv.path.exists() and stamp.get("root", str(ROOT)) != str(ROOT):
        print("  the checkout has moved; making .venv anew")
        shutil.rmtree(venv.path)
    if not venv.python.exists():
        venv.make()
        stamp = {}
    before = venv.installed()
    pins = {canonical(pin.name): pin for name in sets for pin in read_lock(lock_of(name))}
    missing = [pin for name, pin in sorted(pins.items()) if before.get(name) != pin.version]
    if missing:
        fetch, need = sum(pin.download for pin in missing), sum(pin.disk for pin in missing)
        large = sorted((pin for pin in missing if pin.download > 50_000_000), key=lambda pin: -pin.download)
        check_room(venv, need)
        print(
            (
                f"  {len(missing)} package{'s' * (len(missing) != 1)} to install: {size(fetch)} to fetch, "
                f"{size(need)} on disk"
            ),
            flush=True,
        )
        if large:
            print("  the large ones: " + ", ".join(f"{pin.name} {size(pin.download)}" for pin in large), flush=True)
        install(venv, missing)
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if stamp.get("project") != project or "orchestra-slm" not in before:
        install_project(venv)
    ready = {key: value for key, value in stamp.items() if key.startswith("ready:")}
    ready |= {f"ready:{name}": digest(venv, name) for name in sets}
    venv.stamp.write_text(json.dumps({"root": str(ROOT), "project": project, **ready}, indent=1) + "\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 if ready, 2 for an error that the user can fix, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="+", choices=["base", "cpu"], help="base, cpu or both")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the folder of the environment")
    chosen = parser.parse_args(arguments)
    sets = sorted(set(chosen.sets))
    venv = Venv(chosen.venv.absolute())
    stamp = read_stamp(venv)
    if venv.python.exists() and all(stamp.get(f"ready:{name}") == digest(venv, name) for name in sets):
        return 0
    try:
        print(f"Orchestra: setting up {' + '.join(sets)}", flush=True)
        with alone(venv.path.with_name(venv.path.name + ".lock")):
            set_up(venv, sets)
    except Trouble as trouble:
        print(f"\n{trouble}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
