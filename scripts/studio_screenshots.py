"""Makes the screenshots of `docs/how-to/studio.md` from runs of a real server with a scripted fleet.

    python scripts/studio_screenshots.py

It needs the packages of the group `test` and the distribution's Chromium.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.server.studio_project import DOCUMENTS, QUESTION, serve_studio  # noqa: E402 - of the checkout

TARGET = ROOT / "docs" / "how-to"
CHROMIUM = "/usr/bin/chromium"
SECONDS = 0.25
"""The time of a call, so that the bars of the timeline have a length."""


def post(address: str, path: str, body: Any) -> Any:
    """Posts JSON and returns the answer."""
    request = urllib.request.Request(
        f"{address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def start(address: str, workflow: str, inputs: Any, **more: Any) -> str:
    """Runs a workflow until it ends or waits; returns the id of the run."""
    body = {"workflow": workflow, "inputs": inputs, "timeout": 120, **more}
    return str(post(address, "api/runs", body)["id"])


def take(browser: Browser, address: str, name: str, page: str, *, dark: bool = False, width: int = 1440) -> None:
    """Writes one screenshot."""
    context = browser.new_context(
        viewport={"width": width, "height": 900 if width > 600 else 844}, color_scheme="dark" if dark else "light"
    )
    tab = context.new_page()
    tab.goto(f"{address}/#/{page}")
    tab.wait_for_timeout(1500)
    tab.screenshot(path=TARGET / f"studio_{name}.png")
    context.close()


def main() -> None:
    """Makes all screenshots."""
    os.environ["ORCHESTRA_TRUST"] = "1"
    review = {"question": QUESTION, "documents": DOCUMENTS}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")
        project = Path(folder) / "project"
        project.mkdir()
        with serve_studio(project, SECONDS) as address, sync_playwright() as started:
            done = start(address, "report_review", review, options={"tags": {"customer": "42"}})
            post(address, f"api/runs/{done}/answers", {"value": "yes", "by": "ada"})
            withheld = start(
                address,
                "read_one",
                {"question": "What revenue does the company expect for 2026?", "text": DOCUMENTS[3]["text"]},
            )
            waiting = start(address, "report_review", review, options={"tags": {"customer": "7"}})
            start(address, "read_many", {"texts": [f"This is item {number}." for number in range(300)]})
            plan = {"only": ["search"], "confirm": False}
            request = "When does the tariff of Northwind Grid take effect?"
            asked = post(
                address,
                "api/ask",
                {"request": request, "values": {"documents": DOCUMENTS}, "plan": plan, "timeout": 120},
            )["id"]
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            take(browser, address, "run", f"runs/{done}")
            take(browser, address, "node", f"runs/{done}?node=revenue")
            take(browser, address, "question", f"runs/{waiting}", dark=True)
            take(browser, address, "withheld", f"runs/{withheld}", width=390)
            take(browser, address, "plan", f"runs/{asked}?node=answer")
            take(browser, address, "runs", "runs")
            browser.close()


if __name__ == "__main__":
    main()
