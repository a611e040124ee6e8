"""From `pip install` of the wheel to a first verified answer of a model server of the user, without a download."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_demo import answer_from_passage
from tests.e2e.model_servers import ModelServer, Software, requested_schema, serve_in_thread
from tests.packaging.conftest import INSTALL_SECONDS, run

pytestmark = pytest.mark.slow
MODEL = "qwen3:4b"
QUESTION = "When was the tower opened?"
TEXT = "The tower was opened in 1889. It has two stairs.\n"
PLAN = "s1 = answer_from_documents(question=input.request, documents=input.documents)\nreturn s1"


def reply(body: Mapping[str, Any]) -> str:
    """Plans like a model that answers questions from documents, and answers with the year."""
    system = next((str(message["content"]) for message in body["messages"] if message["role"] == "system"), "")
    if system.startswith("Write a plan"):
        return PLAN
    schema = requested_schema(body)
    return "1889" if schema is None else json.dumps(dict.fromkeys(schema["properties"], "1889"))


@pytest.mark.parametrize("software", ["openai", "ollama", "llama.cpp"])
def test_installed_wheel_answers_from_a_folder_with_a_quote(
    installed: tuple[Path, dict[str, str]], software: Software, tmp_path: Path, record_property: Any
) -> None:
    folder, environment = installed
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "tower.txt").write_text(TEXT)
    server = ModelServer(software, models=(MODEL, "other"), answer=reply)
    began = time.monotonic()
    with serve_in_thread(server) as address:
        said = run(
            *(folder / "orchestra", "ask", QUESTION, "-d", "notes", "--endpoint", address, "--model", MODEL, "--json"),
            cwd=tmp_path,
            env=environment,
        )
    seconds = float(Path(environment["HOME"], INSTALL_SECONDS).read_text()) + time.monotonic() - began
    record_property("seconds from pip install to the first answer", round(seconds, 1))
    print(f"{software}: {seconds:.1f} s from pip install to the first verified answer")
    result = json.loads(said.stdout)
    assert (result["status"], result["output"]["text"], result["unsupported"]) == ("done", "1889", [])
    (claim,) = result["claims"]
    assert [verdict["outcome"] for verdict in claim["verdicts"]] == ["pass"]
    assert TEXT.strip().startswith(claim["evidence"][0]["quote"])
    assert {chat["model"] for chat in server.chats} == {MODEL}
    assert not Path(environment["HOME"], ".cache", "orchestra", "models").exists(), "no weights are downloaded"


@pytest.mark.parametrize("software", ["openai", "ollama", "llama.cpp"])
def test_installed_wheel_runs_the_demonstration(
    installed: tuple[Path, dict[str, str]], software: Software, tmp_path: Path
) -> None:
    folder, environment = installed
    with serve_in_thread(ModelServer(software, models=(MODEL,), answer=answer_from_passage)) as address:
        said = run(folder / "orchestra", "demo", "--endpoint", address, cwd=tmp_path, env=environment)
    assert "Of 7 questions that the documents answer, 7 were answered with the right words." in said.stdout
