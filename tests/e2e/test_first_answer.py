"""A first verified answer from any model server: `init`, then `run`, with no fleet of one's own and no download."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import Shell, shell
from tests.e2e.model_servers import ModelServer, Software, requested_schema, serve_in_thread

__all__ = ["shell"]
QUOTE = "how the machine would compute"
INPUTS = ("-i", "question=What does note G describe?", "-i", "text=@documents/ada.txt")


def quote(body: Mapping[str, Any]) -> str:
    """Answers each field with a quote of the text of the starter project."""
    schema = requested_schema(body)
    return QUOTE if schema is None else json.dumps(dict.fromkeys(schema["properties"], QUOTE))


@pytest.mark.parametrize("software", ["openai", "ollama", "llama.cpp", "lm-studio", "vllm"])
def test_first_answer_of_each_server_is_verified(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, software: Software
) -> None:
    server = ModelServer(software, key="sk-1", answer=quote)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with serve_in_thread(server) as address:
        assert shell("init", "first", "--endpoint", address).code == 0
        monkeypatch.chdir("first")
        done = shell("run", "hello", *INPUTS)
        data = shell("run", "hello", *INPUTS, "--json").json
    assert done.code == 0, done.out + done.err
    assert QUOTE in done.out
    assert f"\u201c{QUOTE}\u201d  input.text [202:231]\n  checked by quote (reading), score 1.00" in done.out
    assert data["output"] == {"answer": QUOTE, "title": QUOTE}
    assert data["evidence"], "the answer has the quote as its evidence"
    assert done.err.count("answers by its prompt") == 1
    assert all("sk-1" not in line for line in (done.out, done.err))
    assert not (shell.home / "xdg_cache_home").exists(), "nothing is downloaded"


def test_first_answer_by_the_variables_of_openai(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ModelServer("openai", models=("small", "large"), key="sk-1", answer=quote)
    shell("init", ".hello")
    monkeypatch.chdir(".hello")
    with serve_in_thread(server) as address:
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
        several = shell("run", "hello", *INPUTS)
        assert (several.code, "F225" in several.err) == (1, True), several.err
        monkeypatch.setenv("OPENAI_MODEL", "large")
        assert shell("run", "hello", *INPUTS).code == 0
    assert {chat["model"] for chat in server.chats} == {"large"}


def test_first_answer_of_a_batch(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ModelServer("ollama", answer=quote)
    shell("init", "first")
    monkeypatch.chdir("first")
    Path("rows.jsonl").write_text(
        "".join(
            json.dumps({"id": f"r{number}", "input": {"question": "?", "text": f"{QUOTE} {number}"}}) + "\n"
            for number in range(3)
        )
    )
    files = ("--input", "rows.jsonl", "--output", "out.jsonl")
    with serve_in_thread(server) as address:
        done = shell("batch", "hello", "--endpoint", address, *files)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["output"]["answer"] for row in rows] == [QUOTE] * 3, rows
