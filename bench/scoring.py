"""Ways to judge several claims: k claims beside one document as k chats, as calls of `/generative_scoring`, and as a
list of prompts.

    python -m bench.scoring [--rounds 9] [--claims 1 4 16] [--tokens 350] [--docs FOLDER]

Calls a judge of the laptop's fleet, which it starts or adopts: its base without an adapter, which judges badly; the
duration does not depend on that. Every round has new documents; the order of the arms alternates. Each arm requests the
probabilities of all three labels for the same tokens:

- *one by one*: the engine's way. k concurrent chats with a choice of three labels, each stopped after its first token,
  which determines the label;
- *to the end*: the same k chats, each generated to its end;
- *scored*: two concurrent calls of `/generative_scoring`, because it returns the probability of the first label only,
  and two of three are needed;
- *listed*: one call of `/v1/completions` with k prompts, one token each, with the log-probabilities of the likeliest
  twenty.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench import machine
from bench.verification import write
from orchestra.agents.card import Card
from orchestra.core.protocols import CallRequest, CallResult
from orchestra.fleet import config
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http.client import HttpRequest, HttpResponse

SERVER = "smol"
CHARACTERS = 2.3
"""Characters per token of these documents, which have many numbers and names."""
LABELS = ("supported", "contradicted", "not stated")
NAMES = ("Amara", "Bruno", "Chiara", "Dmitri", "Elif", "Femi", "Greta", "Hamid", "Ines", "Jonas")
THINGS = ("bridges", "clocks", "paintings", "letters", "maps", "songs", "chairs", "lamps", "gardens", "engines")
PLACES = ("Lyon", "Turin", "Porto", "Ghent", "Bergen", "Tartu", "Cadiz", "Graz", "Split", "Delft")


def judge() -> Card:
    """Returns a language-model agent that gives one of the labels, and the probabilities of two of them."""
    text, chance = {"type": "string"}, {"anyOf": [{"type": "number"}, {"type": "null"}]}
    fields = {"label": {"enum": list(LABELS)}, "p_supported": chance, "p_refute": chance}
    return Card.declare(
        "judge",
        input={"type": "object", "properties": {"claim": text, "evidence": text}, "required": ["claim", "evidence"]},
        output={"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False},
        prompt="<!-- user -->\n{{ evidence }}\n\nClaim: {{ claim }}",
        computed={"p_supported": {"probability": "supported"}, "p_refute": {"probability": "contradicted"}},
        model="base",
        system="Judge.",
        max_output=8,
        min_output=4,
    )


@dataclass(frozen=True)
class Spent:
    """The cost of one arm for some claims."""

    seconds: float
    prompt: int
    cached: int
    output: int
    chances: Sequence[tuple[float, float]]
    """Probabilities of each claim: supported, contradicted."""


def document(chance: random.Random, tokens: int, count: int) -> tuple[str, list[str]]:
    """Returns a new text of about that many tokens with that many claims; every second one is wrong."""
    sentences: list[str] = []
    claims: list[str] = []
    while len("".join(sentences)) < CHARACTERS * tokens or len(claims) < count:
        who, what, where, year = (
            chance.choice(NAMES),
            chance.choice(THINGS),
            chance.choice(PLACES),
            chance.randint(1500, 1999),
        )
        made = chance.randint(3, 90)
        if len("".join(sentences)) < CHARACTERS * tokens:
            sentences.append(f"In {year} {who} made {made} {what} for the town of {where}.")
        stated = made if len(claims) % 2 else made + chance.randint(1, 9)
        claims.append(f"{who} made {stated} {what} for {where} in {year}.")
    return " ".join(sentences), claims[:count]


class Ways:
    """The arms on one server."""

    def __init__(self, fleet: Fleet, card: Card) -> None:
        self.fleet, self.card, self.model = fleet, card, ""
        self.labels: list[int] = []
        self.body: dict[str, Any] = {}
        """Body of a chat, as the fleet sends it."""

    async def prepare(self) -> None:
        """Starts the server and determines the labels' first tokens."""
        await self.fleet.wait_until_ready()
        warm = await self.one_by_one("The bridge is old.", ["The bridge is old.", "The bridge is new."])
        assert self.model, warm
        for label in LABELS:
            self.labels.append((await tokens(self.fleet, label))[0])

    async def one_by_one(self, evidence: str, claims: Sequence[str]) -> Spent:
        """As the engine."""
        began = time.perf_counter()
        calls = [
            CallRequest(
                run="bench",
                node=f"n{at}",
                attempt=1,
                kind="agent",
                name=self.card.name,
                inputs={"claim": claim, "evidence": evidence},
                label="internal",
                version=self.card.digest,
            )
            for at, claim in enumerate(claims)
        ]
        replies = await asyncio.gather(*(self.fleet.call(call) for call in calls))
        seconds = time.perf_counter() - began
        done = [reply for reply in replies if isinstance(reply, CallResult)]
        assert len(done) == len(claims), replies
        self.model, self.body = done[0].model, msgspec.json.decode(done[0].sent)
        usages = [one.usage for one in done]
        chances = [(one.value["p_supported"], one.value["p_refute"]) for one in done]
        prompt, cached, output = (
            sum(getattr(one, key) for one in usages) for key in ("prompt_tokens", "cached_tokens", "output_tokens")
        )
        return Spent(seconds, prompt, cached, output, chances)

    async def to_the_end(self, evidence: str, claims: Sequence[str]) -> Spent:
        """As the engine, but generated to the end."""
        began = time.perf_counter()
        system, user = self.body["messages"]
        bodies = [
            {**self.body, "max_tokens": 8, "messages": [system, {**user, "content": f"{evidence}\n\nClaim: {claim}"}]}
            for claim in claims
        ]
        replies = await asyncio.gather(*(asked(self.fleet, "/v1/chat/completions", body) for body in bodies))
        seconds = time.perf_counter() - began
        tops = [
            {one["token"]: one["logprob"] for one in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
            for reply in replies
        ]
        return _counted(seconds, [reply["usage"] for reply in replies], tops)

    def parts(self, evidence: str, claims: Sequence[str]) -> tuple[str, list[str]]:
        """Returns the prompt of the agent as a common prefix and the suffix of each claim."""
        begin = f"<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n{evidence}\n\nClaim:"
        return begin, [f" {claim}<|im_end|>\n<|im_start|>assistant\n" for claim in claims]

    async def same(self, evidence: str, claims: Sequence[str]) -> bool:
        """Returns whether prefix and suffix have the same tokens as the chat."""
        begin, rests = self.parts(evidence, claims)
        first = await tokens(self.fleet, begin)
        for claim, rest in zip(claims, rests, strict=True):
            body = {
                "model": config_model(self.fleet),
                "messages": [
                    {"role": "system", "content": "Judge."},
                    {"role": "user", "content": f"{evidence}\n\nClaim: {claim}"},
                ],
                "add_generation_prompt": True,
            }
            if [*first, *await tokens(self.fleet, rest)] != (await asked(self.fleet, "/tokenize", body))["tokens"]:
                return False
        return True

    async def scored(self, evidence: str, claims: Sequence[str]) -> Spent:
        """Two calls of `/generative_scoring`: one for the probability of *supported* among the three, one for
        *contradicted*.
        """
        begin, rests = self.parts(evidence, claims)
        began = time.perf_counter()
        turned = [self.labels, [*self.labels[1:], self.labels[0]]]
        found = await asyncio.gather(*(scores(self.fleet, self.model, begin, rests, labels) for labels in turned))
        seconds = time.perf_counter() - began
        (first, _), (second, _) = found
        return _spent(seconds, [usage for _, usage in found], list(zip(first, second, strict=True)))

    async def listed(self, evidence: str, claims: Sequence[str]) -> Spent:
        """One call of `/v1/completions` with a list of prompts."""
        begin, rests = self.parts(evidence, claims)
        body = {
            "model": self.model,
            "prompt": [begin + rest for rest in rests],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 20,
            "add_special_tokens": False,
            "structured_outputs": {"choice": list(LABELS)},
        }
        began = time.perf_counter()
        reply = await asked(self.fleet, "/v1/completions", body)
        seconds = time.perf_counter() - began
        choices = sorted(reply["choices"], key=lambda one: one["index"])
        return _counted(seconds, [reply["usage"]], [choice["logprobs"]["top_logprobs"][0] for choice in choices])


async def asked(fleet: Fleet, path: str, body: dict[str, Any]) -> Any:
    """Calls a path of vLLM that the fleet does not use."""
    sent = await fleet.client.sender.send(SERVER, HttpRequest(path, msgspec.json.encode(body)), seconds=600)
    assert isinstance(sent.result, HttpResponse), sent.result
    return msgspec.json.decode(sent.result.received)


async def tokens(fleet: Fleet, text: str) -> list[int]:
    """Returns the tokens of a text by the server's tokenizer, without the tokens that start a prompt."""
    reply = await asked(fleet, "/tokenize", {"model": config_model(fleet), "prompt": text, "add_special_tokens": False})
    found: list[int] = reply["tokens"]
    return found


async def scores(
    fleet: Fleet, model: str, query: str, items: Sequence[str], labels: Sequence[int]
) -> tuple[list[float], dict[str, Any]]:
    """Calls vLLM's `/generative_scoring`: for each item after the query, the probability of the first of the label
    tokens among them; and the server's token counts.
    """
    body = {"model": model, "query": query, "items": [*items], "label_token_ids": [*labels], "apply_softmax": True}
    reply = await asked(fleet, "/generative_scoring", body)
    return [row["score"] for row in sorted(reply["data"], key=lambda row: row["index"])], reply["usage"]


def _counted(seconds: float, usages: Sequence[Any], tops: Sequence[dict[str, float]]) -> Spent:
    """Returns the server's token counts, and the probabilities of the first tokens."""
    chances = []
    for top in tops:
        masses = dict.fromkeys(LABELS, 0.0)
        for text, logprob in top.items():
            meant = [label for label in LABELS if text and label.startswith(text)]
            if len(meant) == 1:
                masses[meant[0]] += math.exp(logprob)
        whole = sum(masses.values())
        chances.append((masses["supported"] / whole, masses["contradicted"] / whole))
    return _spent(seconds, usages, chances)


def _spent(seconds: float, usages: Sequence[Any], chances: Sequence[tuple[float, float]]) -> Spent:
    cached = sum((one.get("prompt_tokens_details") or {}).get("cached_tokens") or 0 for one in usages)
    return Spent(
        seconds,
        sum(one["prompt_tokens"] for one in usages),
        cached,
        sum(one["completion_tokens"] for one in usages),
        chances,
    )


def config_model(fleet: Fleet) -> str:
    """Returns the name of the server's own model."""
    return fleet.config.servers[SERVER].model


HEAD = """\
| claims | way | requests | seconds a claim | prompt tokens a claim, of them cached | written | P(label) differs by |
|---:|---|---:|---:|---:|---:|---:|"""


@dataclass
class Told:
    """The results of one arm for a number of claims."""

    requests: int
    rounds: list[Spent] = field(default_factory=list)
    apart: float = 0.0
    """Maximal difference of a probability from the first arm's in the same round, on a document in the server's cache.
    """

    def line(self, count: int, name: str) -> str:
        """Returns its line of the table: the median over the rounds, in brackets minimum and maximum."""
        seconds = sorted(one.seconds / count for one in self.rounds)
        spread = f"{statistics.median(seconds):.3f} [{seconds[0]:.3f}, {seconds[-1]:.3f}]"
        prompt, cached, output = (
            statistics.mean(getattr(one, key) for one in self.rounds) / count for key in ("prompt", "cached", "output")
        )
        cells = [
            count,
            name,
            self.requests,
            spread,
            f"{prompt:.0f}, {cached:.0f}",
            f"{output:.1f}",
            f"{self.apart:.3f}",
        ]
        return f"| {' | '.join(map(str, cells))} |"

    def compare(self, one: Spent, other: Spent) -> None:
        """Updates the maximal difference of probabilities."""
        pairs = zip(one.chances, other.chances, strict=True)
        self.apart = max(self.apart, *(abs(a - b) for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True)))


async def measured(given: argparse.Namespace) -> str:
    """Returns the table."""
    card = judge()
    described = config.read_config(machine.ROOT / "configs" / "laptop.yaml")
    chance = random.Random(given.seed)
    lines = [HEAD]
    async with Fleet.open(described, cards={card.name: card}) as fleet:
        ways = Ways(fleet, card)
        await ways.prepare()
        arms = {
            "one by one": ways.one_by_one,
            "to the end": ways.to_the_end,
            "scored": ways.scored,
            "listed": ways.listed,
        }
        for count in given.claims:
            found = {name: Told({"scored": 2, "listed": 1}.get(name, count)) for name in arms}
            for turn, order in zip(range(given.rounds), itertools.cycle(itertools.permutations(arms)), strict=False):
                text, claims = document(chance, given.tokens, count)
                if not turn:
                    assert await ways.same(text, claims), "the tokens are others"
                for name in order:
                    # A separate document of the same length for each arm, so that no arm uses another's cache.
                    mine = f"{name} {turn} {chance.random():.6f}. {text}"
                    found[name].rounds.append(await arms[name](mine, claims))
                base = await ways.one_by_one(text, claims)
                for name in arms:  # for "one by one": its difference from a repetition of itself
                    found[name].compare(base, await arms[name](text, claims))
            lines += [told.line(count, name) for name, told in found.items()]
            print(*lines[-len(found) :], sep="\n", file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> int:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--claims", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=350, help="approximate tokens of the document")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--docs", type=Path, help="write the table into concepts/verification.md of this folder")
    given = parser.parse_args()
    table = f"{asyncio.run(measured(given))}\n\n{machine.now()}; {machine.code()}."
    print(table)
    if given.docs:
        write(given.docs / "concepts" / "verification.md", "scoring", table, "bench.scoring")
    return 0


if __name__ == "__main__":
    sys.exit(main())
