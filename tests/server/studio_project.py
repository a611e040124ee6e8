"""A project whose runs show all that the studio shows: a review of a company's report, and a scripted model server.

The server answers by the text of the request, so a run is the same each time.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from orchestra.testing.fake_vllm.http import Receive, Scope, Send
from tests.e2e.model_servers import ModelServer, Reply, serve

ROOT = Path(__file__).parents[2]
QUESTION = "How much did Northwind Grid earn in 2025, and what changed?"
DOCUMENTS = [
    {
        "source": "annual-report-2025.txt",
        "text": (
            "Northwind Grid operates 4,180 kilometres of transmission lines in three regions. "
            "Revenue for the year ended 31 December 2025 was $612 million, up from $574 million in 2024. "
            "The increase reflects the new tariff that the regulator approved in March 2025. "
            "Operating costs rose to $398 million because of storm repairs."
        ),
    },
    {
        "source": "letter-to-shareholders.txt",
        "text": (
            "Dear shareholders, the past year was demanding. Two storms in January interrupted supply for 41,000 "
            "homes, and our crews restored it within six days. We replaced 212 towers before the summer."
        ),
    },
    {
        "source": "regulator-notice.txt",
        "text": (
            "The Commission approves the transmission tariff of Northwind Grid with effect from 15 March 2025. "
            "The allowed return on equity is 9.4 per cent."
        ),
    },
    {
        "source": "press-2025-11.txt",
        "text": (
            "Analysts expect Northwind Grid to report about $600 million. The company has not commented on the "
            "estimate. Its share price rose by four per cent in November."
        ),
    },
]
FILES = {
    "orchestra.toml": 'fleet = "scripted"\n',
    "agents/passage_reader/agent.yaml": """\
schema: orchestra/v1
name: passage_reader
description: Answers a question from one passage, with the words that say it.
input: {question: str, context: str}
output: {answer: str | null, quote: Quote | null}
evidence: context
max_output: 200
""",
    "agents/passage_reader/prompt.md": """\
Answer the question from the passage only. Quote the words that say it. Write null if the passage does not say it.

Passage:
{{ context }}

Question: {{ question }}
""",
    "agents/claim_judge/agent.yaml": """\
schema: orchestra/v1
name: claim_judge
description: Judges whether evidence supports a claim.
input: {claim: str, evidence: str}
output: {label: Verdict, p_supported: float, p_support: float, p_refute: float}
types:
  Verdict: {type: string, enum: [supported, contradicted, not stated]}
max_output: 100
""",
    "agents/claim_judge/prompt.md": """\
Does the evidence support the claim?

Evidence:
{{ evidence }}

Claim: {{ claim }}
""",
    "agents/headline_writer/agent.yaml": """\
schema: orchestra/v1
name: headline_writer
description: Writes a headline for an answer.
input: {text: str}
output: {headline: str}
max_output: 100
""",
    "agents/headline_writer/prompt.md": "Write a headline of at most ten words.\n\n{{ text }}\n",
    "workflows/report_review.yaml": """\
schema: orchestra/v1
name: report_review
description: Answers a question from a company's documents, with quotes, and lets a person approve the headline.
input:
  question: {type: str, description: What you want to know.}
  documents: {type: "list[Document]", description: The texts that the answer may rest on.}
output:
  revenue: ${revenue.answer}
  quote: ${revenue.quote}
  outlook: ${outlook}
  headline: ${headline.headline}
  published: ${approval}
budget: {tokens: 60000, seconds: 600}
nodes:
  passages:
    tool: search
    with: {query: "${input.question}", documents: "${input.documents}", top: 4}
  readings:
    agent: passage_reader
    each: ${passages}
    as: passage
    with: {question: "${input.question}", context: "${passage.text}"}
    checks: [numbers, quote]
    against: ${passage.text}
    otherwise: [retry, abstain]
    retry: {attempts: 2, wait: [0, 0]}
  revenue:
    agent: passage_reader
    with: {question: "What was the revenue in 2025?", context: "${input.documents[0].text}"}
    checks: [numbers, quote]
    against: ${input.documents[0].text}
    otherwise: [retry, escalate, abstain]
    retry: {attempts: 2, wait: [0, 0]}
  forecast:
    agent: passage_reader
    with: {question: "What revenue does the company expect for 2026?", context: "${input.documents[3].text}"}
    checks: [numbers, quote]
    against: ${input.documents[3].text}
    otherwise: [retry, abstain]
    retry: {attempts: 2, wait: [0, 0]}
  outlook:
    first_of: ["${forecast.answer}", "not stated"]
  headline:
    agent: headline_writer
    with: {text: "Revenue of Northwind Grid in 2025: ${revenue.answer != null ? revenue.answer : 'not known'}"}
    checks: [numbers, entailment(claim_judge)]
    against: ${input.documents[0].text}
    otherwise: [retry, abstain]
    retry: {attempts: 2, wait: [0, 0]}
  approval:
    ask: "May this headline be published? ${headline.headline}"
    options: ["yes", "no"]
""",
    "workflows/read_one.yaml": """\
schema: orchestra/v1
name: read_one
description: Answers a question from one text, with a quote.
input: {question: str, text: str}
output: ${reading}
nodes:
  reading:
    agent: passage_reader
    with: {question: "${input.question}", context: "${input.text}"}
    checks: [quote]
    against: ${input.text}
    otherwise: [retry, abstain]
    retry: {attempts: 2, wait: [0, 0]}
""",
    "workflows/read_many.yaml": """\
schema: orchestra/v1
name: read_many
description: Reads each of many short texts.
input: {texts: "list[str]"}
output: {read: "${readings.values}"}
nodes:
  readings:
    agent: passage_reader
    each: ${input.texts}
    as: text
    limit: 10000
    with: {question: "What is the number?", context: "${text}"}
    checks: [quote]
    against: ${text}
    otherwise: [abstain]
""",
}


def fleet_file(address: str) -> str:
    """Returns a fleet file with a small and a larger model on one scripted server."""
    return f"""\
schema: orchestra/fleet/v1
name: scripted
description: Two models on a scripted server.
servers:
  small: {{endpoint: "{address}", model: smol-360m, dialect: vllm, label: restricted, max_model_len: 8192}}
  large: {{endpoint: "{address}", model: qwen-1.5b, dialect: vllm, label: restricted, max_model_len: 8192}}
models: {{base: small, large: large}}
escalate: [large]
"""


class ScriptedModels(ModelServer):
    """The scripted server. Each answer takes `seconds`, times the length of its prompt, so that bars have a length."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__("vllm", models=("smol-360m", "qwen-1.5b"), answer=answer_request)
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request after a while."""
        if self.seconds and scope["path"] == "/v1/chat/completions":
            await asyncio.sleep(self.seconds * (1 + len(self.chats) % 5 / 2))
        await super().__call__(scope, receive, send)


def answer_request(body: Mapping[str, Any]) -> Reply:
    """Returns the answer of the scripted model to a chat request."""
    text = "\n".join(str(one["content"]) for one in body["messages"])
    last = str(body["messages"][-1]["content"])
    if "Write a plan" in text:
        return _plan(text)
    if "headline of at most" in text:
        return json.dumps({"headline": "Northwind Grid earns $612 million after new tariff"})
    if "Does the evidence support" in text:
        return json.dumps({"label": "supported", "p_supported": 0.94, "p_support": 0.94, "p_refute": 0.02})
    if "expect for 2026" in text:
        return json.dumps(
            {"answer": "about $640 million", "quote": "expect Northwind Grid to report about $640 million"}
        )
    if "What is the number?" in text:
        number = re.findall(r"item (\d+)", text)
        if number and int(number[-1]) % 97 == 13:
            return json.dumps({"answer": "unclear", "quote": "the number is unclear"})
        return json.dumps(
            {"answer": number[-1], "quote": f"item {number[-1]}"} if number else {"answer": None, "quote": None}
        )
    if "Revenue for the year ended" in text:
        asked_again = body["model"] != "smol-360m"
        if "What was the revenue" in last and not asked_again:
            return json.dumps({"answer": "$621 million", "quote": "was $621 million"})
        return json.dumps({"answer": "$612 million", "quote": "was $612 million, up from $574 million in 2024"})
    if "Commission approves" in text:
        return json.dumps({"answer": "a new tariff", "quote": "with effect from 15 March 2025"})
    if "Analysts expect" in text:
        return json.dumps({"answer": "$600 million", "quote": "earned $600 million"})
    return json.dumps({"answer": None, "quote": None})


def _plan(text: str) -> str:
    if "no 'serch'" in text or "serch" in text.partition("Not accepted")[2]:
        return "s1 = search(query=input.request, documents=input.documents)\nreturn s1"
    return "s1 = serch(query=input.request, documents=input.documents)\nreturn s1"


@contextmanager
def serve_studio(project: Path, seconds: float = 0.0, *, locked: bool = False) -> Iterator[str]:
    """Serves the project and the studio in a process of its own; yields the address. Calls of models take about
    `seconds`. A locked server asks for a key; `project/key` contains one.
    """
    command = [sys.executable, "-m", "tests.server.studio_project", str(project), str(seconds), str(int(locked))]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        if not address:
            raise RuntimeError("the server did not start")
        try:
            yield address
        finally:
            server.stdin.close()


async def _serve(project: Path, seconds: float, locked: bool) -> None:
    """Serves until the standard input ends."""
    import uvicorn

    from orchestra import Orchestra
    from orchestra.server import ServerSettings, create_app
    from orchestra.server.access import create_key

    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve(ScriptedModels(seconds)))
        furnish(project, address)
        orchestra = await stack.enter_async_context(Orchestra.open(project=project, fleet="none"))
        app = create_app(orchestra, ServerSettings(auth=locked))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        task = asyncio.create_task(server.serve())
        async with asyncio.timeout(60):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        if locked:
            _, key = await create_key(app.state.services.records, "reader", "acme", ("read",), None)
            (project / "key").write_text(key)
        print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await task


def furnish(project: Path, address: str) -> None:
    """Writes the files of the project."""
    for name, text in {**FILES, "configs/scripted.yaml": fleet_file(address)}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1"))
