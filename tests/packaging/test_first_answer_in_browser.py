"""From `pip install` of the wheel in an empty folder to a first verified answer in a browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.model_servers import ModelServer, serve_in_thread
from tests.packaging.conftest import ROOT, run
from tests.packaging.test_first_answer import MODEL, QUESTION, TEXT, reply

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
from playwright.sync_api import expect, sync_playwright  # noqa: E402 - after the check that it is there

CHROMIUM = "/usr/bin/chromium"
START_SECONDS, ANSWER_MS = 120, 120_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(CHROMIUM, os.X_OK), reason=f"there is no browser at {CHROMIUM}"),
]


@contextmanager
def serve(program: Path, folder: Path, home: Path, endpoint: str) -> Iterator[str]:
    """Runs `orchestra serve` of the installed wheel; yields the address of the studio that it prints."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ORCHESTRA_", "XDG_"))}
    with subprocess.Popen(
        [program, "serve", "--port", "0", "--endpoint", endpoint, "--model", MODEL],
        cwd=folder,
        env={**clean, "HOME": str(home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            until, printed = time.monotonic() + START_SECONDS, ""
            while time.monotonic() < until and (line := process.stdout.readline()):
                printed += line
                if address := re.search(r"studio\s+(http://\S+?)/?\s", printed):
                    yield address[1]
                    return
            pytest.fail(f"the server did not print the address of the studio:\n{printed}")
        finally:
            process.terminate()
            process.wait(60)


def test_installed_server_answers_in_the_browser(
    built: tuple[Path, Path], tmp_path: Path, record_property: Any
) -> None:
    pins = tmp_path / "pins.txt"
    lock = (ROOT / "requirements" / "base.lock").read_text("utf-8")
    pins.write_text("\n".join(re.findall(r"^[\w.-]+==\S+", lock, re.MULTILINE)))
    environment, folder, home = tmp_path / "venv", tmp_path / "empty", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    run(sys.executable, "-m", "venv", environment)
    began = time.monotonic()
    run(environment / "bin" / "python", "-m", "pip", "install", "-q", "--no-input", "-c", pins, f"{built[1]}[server]")
    with (
        serve_in_thread(ModelServer("openai", models=(MODEL,), answer=reply)) as endpoint,
        serve(environment / "bin" / "orchestra", folder, home, endpoint) as address,
        sync_playwright() as started,
    ):
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{address}/#/ask")
        page.get_by_label("Your request").fill(QUESTION)
        page.get_by_role("button", name="Write a text").click()
        page.get_by_label("text of document 1").fill(TEXT)
        page.get_by_role("button", name="Ask", exact=True).click()
        status = page.locator(".run-title .status")
        expect(status).to_have_text("done", timeout=ANSWER_MS)
        answer = page.locator(".answer")
        expect(answer).to_contain_text("1889")
        expect(answer).to_contain_text("The tower was opened in 1889.")
        seconds = time.monotonic() - began
        browser.close()
    record_property("seconds from pip install to the first answer in a browser", round(seconds, 1))
    print(f"{seconds:.1f} s from pip install to the first verified answer in a browser")
    assert not Path(home, ".cache", "orchestra", "models").exists(), "no weights are downloaded"
