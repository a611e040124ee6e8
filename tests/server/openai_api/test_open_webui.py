"""The requests that Open WebUI makes (`backend/open_webui/routers/openai.py` and `tasks.py`): the list of models, a
streamed chat, and the titles and tags that it asks the same model for. They are written down here, not recorded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.server.openai_api.clients import SENTENCES, openai_serving

HEADERS = {"Authorization": "Bearer sk-none", "Content-Type": "application/json"}
TITLE = "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n### Output:\nJSON"
TAGS = "### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history.\n### Output:\nJSON"


async def test_open_webui_lists_the_models(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        reply = await api.server.client.get("/v1/models", headers=HEADERS)
    listed = reply.json()
    assert listed["object"] == "list"
    assert all(isinstance(model["id"], str) and model["object"] == "model" for model in listed["data"])


async def test_open_webui_streams_a_chat(tmp_path: Path) -> None:
    body: dict[str, Any] = {
        "stream": True,
        "model": "tell",
        "messages": [
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "When was it finished?"},
        ],
        "temperature": 0.8,
        "stream_options": {"include_usage": True},
    }
    async with openai_serving(tmp_path) as api:
        reply = await api.server.client.post("/v1/chat/completions", headers=HEADERS, json=body)
    assert reply.headers["content-type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    chunks = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]"
    assert "".join(part["delta"].get("content", "") for chunk in chunks for part in chunk["choices"]) == SENTENCES
    assert chunks[-1]["usage"]["total_tokens"] > 0


async def test_open_webui_titles_and_tags_are_ordinary_completions(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        for prompt in (TITLE, TAGS):
            body = {
                "model": "tell",
                "messages": [{"role": "user", "content": prompt}],
                "stream": False,
                "max_completion_tokens": 1000,
            }
            reply = await api.server.client.post("/v1/chat/completions", headers=HEADERS, json=body)
            assert reply.json()["choices"][0]["message"]["content"] == SENTENCES


async def test_open_webui_title_that_lacks_documents_is_a_client_error(tmp_path: Path) -> None:
    body = {"model": "answer", "messages": [{"role": "user", "content": TITLE}], "stream": False}
    async with openai_serving(tmp_path) as api:
        reply = await api.server.client.post("/v1/chat/completions", headers=HEADERS, json=body)
    assert 400 <= reply.status_code < 500
    assert reply.json()["error"]["code"] == "E012"
