"""The three forms of a question for a call, on two rows and a scripted server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.native_tools import FORMS, Form, read_rows, run_form, summarize
from tests.e2e.model_servers import ModelServer, Reply, serve, tool_call, tool_calls

FUNCTION = {
    "name": "math.add",
    "description": "Adds.",
    "parameters": {"type": "dict", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}
CALLS: list[Any] = [[{"math.add": {"a": [3]}}], [], [{"math.add": {"a": [1]}}] * 2]
LINE = {"Add 3.": "s1 = math.add(a=3)", "Hello.": "return"}


def folder(tmp_path: Path) -> Path:
    rows = [
        {"id": str(at), "input": {"question": text, "functions": [FUNCTION]}, "expected": {"calls": calls}}
        for at, (text, calls) in enumerate(zip(("Add 3.", "Hello.", "Add twice."), CALLS, strict=True))
    ]
    (tmp_path / "bfcl").mkdir()
    (tmp_path / "bfcl" / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def model(body: Mapping[str, Any]) -> Reply:
    """Is wrong at first, and right after a rejection or if no call is expected."""
    prompt = body["messages"][-1]["content"]
    question = next(text for text in LINE if text in prompt)
    if "tools" not in body:
        return LINE[question] if "!! " in prompt or question == "Hello." else "s1 = math.add(b=3)"
    if question == "Hello.":
        return "Hello to you."
    return tool_calls(tool_call("math_add", {"a": 3 if "!! " in prompt else "three"}))


@pytest.mark.parametrize("form", FORMS)
async def test_native_tools_benchmark_counts_repairs(form: Form, tmp_path: Path) -> None:
    server = ModelServer("vllm", answer=model)
    rows = read_rows(folder(tmp_path) / "bfcl" / "dev.jsonl", 9)
    async with serve(server) as address:
        options = argparse.Namespace(endpoint=address, model="auto", repairs=1)
        results, _ = await run_form(form, rows, options)
    assert summarize(form, rows, results, 0).split(None, 1)[1] == (
        "correct 1/1 calls, 1/1 without a call; first line rejected 1/2, none accepted 0/2; 0 s"
    )
    assert [key for key in ("tools", "structured_outputs") if key in server.chats[0]] == {
        "native": ["tools"],
        "grammar": ["structured_outputs"],
        "text": [],
    }[form]
