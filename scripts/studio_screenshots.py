"""Makes the screenshots of `docs/how-to/studio.md` from runs of `orchestra serve` with the fleet of this machine.

    python scripts/studio_screenshots.py [--fleet laptop]

The runs are real: packaged agents answer questions from the example documents on a local vLLM server, which this script
starts and stops. It needs what `make setup` installs, and the distribution's Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "how-to"
DOCUMENTS = ROOT / "examples" / "documents"
CHROMIUM = "/usr/bin/chromium"
ORCHESTRA = Path(sys.executable).with_name("orchestra")
START_SECONDS = 300
REVIEW = """\
schema: orchestra/v1
name: document_review
description: Answers a question from documents, with quotes, and lets a person approve the answer.
input:
  question: {type: str, description: What you want to know.}
  documents: {type: "list[Document]", description: The texts that the answer may rest on.}
output: {answer: "${answer}", published: "${approval}"}
budget: {tokens: 40000, seconds: 600}
nodes:
  passages:
    tool: search
    with: {query: "${input.question}", documents: "${input.documents}", top: 4}
  readings:
    agent: generative_reader
    each: ${passages}
    as: passage
    with: {question: "${input.question}", context: "${passage.text}"}
    checks: [quote, numbers]
    against: ${passage}
    otherwise: [retry, abstain]
    retry: {attempts: 2, wait: [0, 0]}
  answer:
    tool: cite
    with: {question: "${input.question}", readings: "${readings.values}", passages: "${passages}"}
  approval:
    ask: "May this answer be published? ${answer.text != null ? answer.text : 'none'}"
    options: ["yes", "no"]
"""
PLANNED = "What does the CPI scale measure? Also: what is 18 percent of 2450?"


class Server:
    """A running server and its HTTP interface."""

    def __init__(self, address: str) -> None:
        self.address = address

    def send(self, path: str, body: Any = None) -> Any:
        """Posts JSON, or gets a route if there is no body; returns the JSON of the reply."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode()}") from error

    def start(self, workflow: str, inputs: Any, **options: Any) -> str:
        """Runs a workflow until it ends or waits; returns the id of the run."""
        body = {"workflow": workflow, "inputs": inputs, "timeout": 300, "options": options}
        return str(self.send("api/runs", body)["id"])


@contextmanager
def serve(project: Path, fleet: str) -> Iterator[Server]:
    """Runs `orchestra serve` in a project; stops the model servers at the end."""
    with subprocess.Popen(
        [ORCHESTRA, "serve", "--port", "0", "--fleet", fleet],
        cwd=project,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            until, printed = time.monotonic() + START_SECONDS, ""
            while time.monotonic() < until and (line := process.stdout.readline()):
                printed += line
                if address := re.search(r"studio\s+(http://\S+?)/?\s", printed):
                    yield Server(address[1])
                    return
            raise RuntimeError(f"the server did not print its address: {printed}")
        finally:
            process.terminate()
            process.wait(60)
            subprocess.run([ORCHESTRA, "fleet", "stop"], cwd=project, check=False)


def take(browser: Browser, server: Server, name: str, page: str, *, dark: bool = False, width: int = 1440) -> None:
    """Writes one screenshot."""
    context = browser.new_context(
        viewport={"width": width, "height": 900 if width > 600 else 844}, color_scheme="dark" if dark else "light"
    )
    tab = context.new_page()
    tab.goto(f"{server.address}/#/{page}")
    tab.wait_for_timeout(1500)
    tab.screenshot(path=TARGET / f"studio_{name}.png")
    context.close()


def withhold(server: Server, inputs: Any) -> str:
    """Returns the run of a question whose answer is withheld for its score, or an empty string."""
    run = server.start("answer_from_documents", inputs, accept=0.95)
    return run if server.send(f"api/runs/{run}/answer")["status"] == "abstained" else ""


def take_all(server: Server) -> None:
    """Makes the runs and one screenshot of each page."""
    documents = [{"source": file.name, "text": file.read_text("utf-8")} for file in sorted(DOCUMENTS.glob("*-*.txt"))]
    questions = json.loads((DOCUMENTS / "questions.json").read_text("utf-8"))
    answered = [part["question"] for part in questions if part["answers"]]
    unanswered = next(part["question"] for part in questions if not part["answers"])
    review = {"question": answered[2], "documents": documents}
    approved = server.start("document_review", review, tags={"customer": "42"})
    server.send(f"api/runs/{approved}/answers", {"value": "yes", "by": "ada"})
    other = server.start("document_review", {**review, "question": answered[1]}, tags={"customer": "7"})
    none = server.start("answer_from_documents", {"question": unanswered, "documents": documents})
    withheld = next(
        (run for question in answered if (run := withhold(server, {"question": question, "documents": documents}))),
        none,
    )
    waiting = server.start("document_review", {**review, "question": answered[0]}, tags={"customer": "7"})
    plan = {"confirm": False, "rules": False}
    planned = server.send(
        "api/ask", {"request": PLANNED, "values": {"documents": documents}, "plan": plan, "timeout": 300}
    )["id"]
    rows = [{"question": question, "documents": documents} for question in answered[3:]]
    server.send("api/batches", {"workflow": "answer_from_documents", "rows": rows})
    schedule = {"cron": "0 7 * * 1-5", "workflow": "answer_from_documents", "inputs": rows[0]}
    server.send("api/schedules", {**schedule, "timezone": "Europe/Berlin"})
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        take(browser, server, "run", f"runs/{approved}")
        take(browser, server, "node", f"runs/{approved}?node=readings[0]")
        take(browser, server, "question", f"runs/{waiting}", dark=True)
        take(browser, server, "withheld", f"runs/{withheld}", width=390)
        take(browser, server, "plan", f"runs/{planned}")
        take(browser, server, "compare", f"compare?a={approved}&b={other}")
        for page in ("runs", "start", "ask", "agents", "fleet", "costs", "batches", "schedules"):
            take(browser, server, page, page)
        browser.close()


def main() -> None:
    """Makes all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleet", default="laptop", help="a name in configs/, or a path")
    chosen = parser.parse_args()
    os.environ["ORCHESTRA_TRUST"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")
        project = Path(folder) / "project"
        (project / "workflows").mkdir(parents=True)
        (project / "orchestra.toml").write_text("")
        (project / "workflows" / "document_review.yaml").write_text(REVIEW)
        with serve(project, chosen.fleet) as server:
            take_all(server)


if __name__ == "__main__":
    main()
