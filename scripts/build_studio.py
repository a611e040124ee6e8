"""Builds the studio from `studio/` into `orchestra/server/studio/`, which is part of the package.

    python scripts/build_studio.py            # npm ci and vite build
    python scripts/build_studio.py --check    # builds elsewhere, and compares the digests with the files of the package

A user of the package needs no Node. Node 20 or later and npm are needed here only.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "studio"
BUILT = ROOT / "orchestra" / "server" / "studio"


def build(target: Path) -> None:
    """Builds the studio into a folder. Raises `CalledProcessError` if a step fails."""
    npm, npx = find_program("npm"), find_program("npx")
    if not (SOURCES / "node_modules" / ".package-lock.json").is_file():
        subprocess.run([npm, "ci"], cwd=SOURCES, check=True, stdout=sys.stderr)
    subprocess.run([npx, "--no-install", "tsc", "--noEmit"], cwd=SOURCES, check=True, stdout=sys.stderr)
    command = [npx, "--no-install", "vite", "build", "--outDir", str(target), "--emptyOutDir", "--logLevel", "warn"]
    subprocess.run(command, cwd=SOURCES, check=True, stdout=sys.stderr)
    script = (target / "studio.js").read_text("utf-8")
    for mark in ("</script", "<!--"):
        if mark in script:
            sys.exit(f"studio.js contains {mark}, which would end the script of an exported page")


def find_program(name: str) -> str:
    """Returns the path of a program, or ends with a message."""
    if (path := shutil.which(name)) is None:
        sys.exit(f"{name} is not on PATH; install Node 20 or later")
    return path


def digests(folder: Path) -> Mapping[str, str]:
    """Returns the SHA-256 digests of the files of a folder by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()
    }


def find_differences(built: Mapping[str, str], fresh: Mapping[str, str]) -> list[str]:
    """Returns the names of files that differ, or that only one of the folders has."""
    return sorted(name for name in built.keys() | fresh.keys() if built.get(name) != fresh.get(name))


def check() -> int:
    """Compares a fresh build with the files of the package; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        differences = find_differences(digests(BUILT), digests(Path(folder)))
    for name in differences:
        print(f"{BUILT.relative_to(ROOT)}/{name} differs from a fresh build")
    if differences:
        print("build it with: python scripts/build_studio.py")
    return int(bool(differences))


def main() -> int:
    """Builds or checks the studio."""
    parser = argparse.ArgumentParser(description="Builds the studio.")
    parser.add_argument("--check", action="store_true", help="compare a fresh build with the files of the package")
    if parser.parse_args().check:
        return check()
    build(BUILT)
    for name, digest in digests(BUILT).items():
        print(f"{digest[:12]}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
