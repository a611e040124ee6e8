"""The planner on model servers without grammars: instructions for any model, and repairs of its lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import Shell, shell
from tests.e2e.model_servers import ModelServer, Software, serve_in_thread

__all__ = ["shell"]
PLAN = ("s1 = search(query=input.request, documents=input.documents)", "return s1")


def replies(*texts: str) -> Any:
    """Returns a model that writes these texts in order, then the last one again."""
    lines: Iterator[str] = iter(texts)

    def answer(body: Mapping[str, Any]) -> str:
        return next(lines, texts[-1])

    return answer


def planned(shell: Shell, server: ModelServer) -> Any:
    """Plans a request on a server."""
    Path("notes").mkdir(exist_ok=True)
    Path("notes/tower.txt").write_text("The tower was opened in 1889.")
    with serve_in_thread(server) as address:
        return shell(*("plan", "When was the tower opened?", "-d", "notes", "--only", "search", "--endpoint", address))


def message(body: Mapping[str, Any], role: str) -> str:
    """Returns the last message of a role. Those before it are examples."""
    return next(str(one["content"]) for one in reversed(body["messages"]) if one["role"] == role)


@pytest.mark.parametrize("software", ["openai", "ollama", "llama.cpp", "lm-studio", "vllm"])
def test_planner_prompt_of_each_server_has_rules(shell: Shell, software: Software) -> None:
    server = ModelServer(software, answer=replies("\n".join(PLAN)))
    done = planned(shell, server)
    assert done.code == 0, done.out + done.err
    assert all(line in done.out for line in PLAN)
    [chat] = server.chats
    system = message(chat, "system")
    assert system.startswith("Write a plan: one line a step")
    assert "return nothing, and no step, if no skill serves the request" in system
    assert not chat.keys() & {"response_format", "structured_outputs", "tools"}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("Sure! First I would search.", "a step begins with its name"),
        ("s1 = serch(query=input.request, documents=input.documents)", "there is no 'serch'; did you mean search?"),
        ("s1 = search(input.request, input.documents)", "expected '='"),
        ("s1 = search(query=input.question, documents=input.documents)", "there is no input.question"),
        ("s1 = search(query=input.request)", "search needs documents"),
        ("return s1", "there is no s1 before this step"),
    ],
)
def test_planner_wrong_line_reason_is_in_next_prompt(shell: Shell, wrong: str, reason: str) -> None:
    server = ModelServer("openai", answer=replies(wrong, "\n".join(PLAN)))
    done = planned(shell, server)
    assert done.code == 0, done.out + done.err
    first, second = server.chats
    assert reason not in message(first, "user")
    assert reason in message(second, "user").partition("Not accepted, write another line:")[2]


def test_planner_wrong_line_after_accepted_ones_keeps_them(shell: Shell) -> None:
    server = ModelServer("openai", answer=replies(f"{PLAN[0]}\nreturn s2", PLAN[1]))
    done = planned(shell, server)
    assert done.code == 0, done.out + done.err
    assert message(server.chats[1], "assistant") == PLAN[0]
    assert "there is no s2" in message(server.chats[1], "user")
