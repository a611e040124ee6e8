"""The built wheel, and a new environment in which it is installed. Both are made once a session."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = "install_seconds.txt"


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command without environment variables that could hide missing parts."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ORCHESTRA_", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The `bin` folder of a new environment with only the wheel, and the variables of a user without settings.

    The file `INSTALL_SECONDS` in the home has the duration of `pip install`.
    """
    home = tmp_path_factory.mktemp("home")
    folder = home / "venv"
    run(sys.executable, "-m", "venv", folder)
    pins = home / "pins.txt"
    pins.write_text(
        "\n".join(re.findall(r"^[\w.-]+==\S+", (ROOT / "requirements" / "base.lock").read_text("utf-8"), re.MULTILINE))
    )
    began = time.monotonic()
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-input", "-c", pins, built[1])
    (home / INSTALL_SECONDS).write_text(f"{time.monotonic() - began:.1f}")
    return folder / "bin", {"HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""}
