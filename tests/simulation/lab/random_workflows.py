"""Random workflows with every kind of node, every modifier and every class of effect, read and compiled like any file.

    workflow = random_workflow(7)
    workflow.text       # its file
    workflow.program    # compiled against `catalog()` and the workflows that it calls
    workflow.inputs     # valid inputs

The same number gives the same workflow. The source of answers writes the plans of a `plan` node
(`tests.simulation.lab.fake_router`).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, TypeAlias

from orchestra.core.errors import InputError, InputErrors
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.program import Program
from orchestra.workflows.yaml.reader import read
from tests.simulation.lab.catalog import COMBINED_CHECKS, EFFECTS, catalog

ValueKind: TypeAlias = Literal["text", "number", "texts", "flag", "reading"]
"""The types of values in these workflows."""

CROWD_EVERY = 1_000
"""One workflow in this many has a node with `CROWD_SIZE` elements, all ready at once."""
CROWD_SIZE = 1_000
WHOLE_EVERY = 12
"""One workflow in this many is accepted as a whole."""


_TEXT_TEMPLATES: dict[ValueKind, str] = {
    "text": "${{{}}}",
    "number": "${{string({})}}",
    "texts": "${{string(size({}))}}",
    "flag": "said ${{{}}}",
    "reading": "${{{}.answer}}",
}


@dataclass(frozen=True, slots=True)
class RandomWorkflow:
    """A random workflow: its text, its program, its inputs, and the kinds and modifiers that it has."""

    number: int
    text: str
    program: Program
    inputs: dict[str, Any]
    features: frozenset[str]


def random_workflow(number: int) -> RandomWorkflow:
    """Returns the workflow of a number. Raises the compiler's errors if none of many drafts compiles, which would be a
    bug here.
    """
    refusals: list[InputError | InputErrors] = []
    for draft in range(40):
        lines = [
            f"{number}/{draft}{part}" for part in ("", "/checks", "/parts", "/choices", "/grounds", "/wants", "/wholes")
        ]
        # separate generators: a new feature does not change the rest of a workflow
        *chances, judging = map(Random, lines)
        author = _WorkflowGenerator(*chances)
        graph = author.workflow(f"w{number}")
        if judging.randrange(WHOLE_EVERY) == 0:
            graph["accept"] = judging.choice((0.0, 0.4, 0.9))
            author.features["whole"] += 1
        text = json.dumps(graph, indent=1)
        try:
            called = {name: read(json.dumps(inner), f"{name}.yaml").graph for name, inner in author.called.items()}
            program = compile_graph(read(text, f"w{number}.yaml").graph, replace(catalog(), workflows=called))
        except (InputError, InputErrors) as error:
            refusals.append(error)
            continue
        return RandomWorkflow(number, text, program, {"text": author.words(6)}, frozenset(author.features))
    raise refusals[-1]


@dataclass(slots=True)
class _BodyScope:
    """The references that a node may read, with their types, and the depth of its body."""

    references: list[tuple[str, ValueKind]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    depth: int = 0

    def inner(self) -> _BodyScope:
        return _BodyScope(list(self.references), [], self.depth + 1)


class _WorkflowGenerator:
    """Generates one workflow, and those that it calls."""

    def __init__(
        self,
        random: Random,
        check_random: Random,
        back_off_random: Random,
        choice_random: Random,
        grounding_random: Random,
        at_least_random: Random,
    ) -> None:
        self.random = random
        self.check_random = check_random
        """For checks that call agents; separate, so that the rest of a workflow does not depend on them."""
        self.back_off_random = back_off_random
        """For nodes that back off."""
        self.choice_random = choice_random
        """For nodes that choose one agent of several."""
        self.grounding_random = grounding_random
        """For plans that start with given values."""
        self.at_least_random = at_least_random
        """For lists with `at_least`."""
        self.called: dict[str, dict[str, Any]] = {}
        self.features: Counter[str] = Counter()
        self.number = 0
        self.crowded = random.randrange(CROWD_EVERY) == 0

    # Small choices

    def likely(self, share: float) -> bool:
        return self.random.random() < share

    def words(self, most: int) -> str:
        return " ".join(
            self.random.choice(("iron", "tower", "of", "1889", "a", "bridge", "light"))
            for _ in range(self.random.randint(1, most))
        )

    def name(self) -> str:
        self.number += 1
        return f"n{self.number}"

    def pick(self, scope: _BodyScope, kind: ValueKind) -> str:
        """Returns a reference of a type, without `${}`; empty if there is none."""
        found = [path for path, of in scope.references if of == kind]
        if not found:
            return ""
        return self.random.choice(found[-4:] if self.likely(0.7) else found)

    def text(self, scope: _BodyScope) -> str:
        """Returns a text that usually reads a value."""
        one, two = self.pick(scope, "text"), self.pick(scope, "text")
        number = self.pick(scope, "number")
        forms = [f"${{{one}}}"] * 3 + [f"see ${{{one}}} and ${{{two}}}", self.words(3)]
        if number:
            forms.append(f"number ${{string({number})}}")
        if reading := self.pick(scope, "reading"):
            forms += [f"${{{reading}.answer}}"] * 2
        return self.random.choice(forms)

    def condition(self, scope: _BodyScope, *, of: str = "") -> str:
        if of:
            return f"${{size({of}) > {self.random.randint(1, 4)}}}"
        forms = [f"size({self.pick(scope, 'text')}) > {self.random.choice((2, 8, 20))}"]
        for kind, form in (("number", "{} > {}"), ("texts", "size({}) > {}")):
            if path := self.pick(scope, kind):  # type: ignore[arg-type]  # both are of `ValueKind`
                forms += [form.format(path, self.random.randint(0, 2))] * 2
        if path := self.pick(scope, "flag"):
            forms += [f'{path} == "{self.random.choice(("yes", "no"))}"'] * 2
        return f"${{{self.random.choice(forms)}}}"

    # Workflows and bodies

    def workflow(self, name: str, depth: int = 0) -> dict[str, Any]:
        scope = _BodyScope([("input.text", "text")], depth=depth)
        count = self.random.randint(2, 6) if depth else self.random.randint(7, 15)
        nodes = self.nodes(scope, count)
        whole: dict[str, Any] = {"schema": "orchestra/v1", "name": name, "input": {"text": "str"}, "nodes": nodes}
        whole["output"] = self.output(scope, single=bool(depth))
        if self.likely(0.5 if depth else 0.35):
            whole["budget"] = self.budget(small=bool(depth))
        if not depth:
            if self.likely(0.3):
                whole["label"] = self.random.choice(("public", "internal", "restricted"))
                self.features[f"label {whole['label']}"] += 1
            if self.likely(0.3):
                whole["defaults"] = {
                    "timeout": self.random.choice((20.0, 60.0)),
                    "retry": {"attempts": 3, "wait": [0.5, 4.0]},
                }
                self.features["defaults"] += 1
        return whole

    def budget(self, *, small: bool) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        where = "nested budget" if small else "budget"
        for key, tight, wide in (
            ("tokens", 120 if small else 200, 4_000),
            ("calls", 3 if small else 4, 60),
            ("seconds", 30.0, 900.0),
        ):
            if self.likely(0.5):
                limits[key] = self.random.choice((tight, tight, wide) if small else (tight, wide, wide))
                self.features[f"{where} {key}"] += 1
        if not small and self.check_random.random() < 0.4:
            limits["check_tokens"] = self.check_random.choice((60, 300, 300, 2_000))
            self.features["budget checks"] += 1
        return limits or {"calls": 50}

    def nodes(self, scope: _BodyScope, count: int) -> dict[str, Any]:
        """Returns nodes that each may read the earlier ones."""
        found: dict[str, Any] = {}
        for left in reversed(range(count)):
            name = self.name()
            node, kind = self.node(scope)
            if not left and not any(path in scope.names for path, _ in scope.references) and "each" in node:
                node, kind = self.agent(scope)  # an output needs a reference
            path = name
            if "each" in node:
                path, kind = f"{name}.values", "texts" if kind == "text" else "number" if kind == "number" else kind
            found[name] = node
            scope.names.append(name)
            if "each" not in node or kind == "texts":
                scope.references.append((path, kind))
        return found

    def output(self, scope: _BodyScope, *, single: bool) -> Any:
        """Returns the output of a program: a text, or a mapping of several values."""
        made = [(path, kind) for path, kind in scope.references if path.split(".")[0] in scope.names]
        texts = [path for path, kind in made if kind == "text"]
        if single:
            if texts:
                return _TEXT_TEMPLATES["text"].format(texts[-1])
            path, kind = made[-1]
            return _TEXT_TEMPLATES[kind].format(path)
        if texts and self.likely(0.3):
            return f"${{{texts[-1]}}}"
        chosen = made[-1:] + [one for one in made[:-1] if self.likely(0.5)]
        return {f"o{number}": f"${{{path}}}" for number, (path, _) in enumerate(chosen)}

    # Nodes

    def node(self, scope: _BodyScope) -> tuple[dict[str, Any], ValueKind]:
        """Returns a node and the type of its value, or of one element."""
        spread = self.pick(scope, "texts") if self.likely(0.3) else ""
        variable = ""
        inside = scope
        if self.crowded and not scope.depth and scope.names:
            self.crowded = False
            self.features["crowd"] += 1
            return {"tool": "crowd", "with": {"text": self.text(scope)}}, "texts"
        if spread:
            self.number += 1
            variable = f"e{self.number}"
            inside = _BodyScope(
                [*scope.references, (variable, "text"), (variable, "text"), (variable, "text")],
                scope.names,
                scope.depth,
            )
        node, kind = self.random_node(inside)
        self.features[self.node_kind(node)] += 1
        if spread:
            node |= {"each": f"${{{spread}}}", "as": variable}
            self.features["each"] += 1
            if self.likely(0.4):
                node["concurrency"] = self.random.randint(1, 3)
                self.features["concurrency"] += 1
            if self.likely(0.3):
                node["limit"] = self.random.choice((2, 50))
                self.features["limit"] += 1
        if spread and self.at_least_random.random() < 0.25:
            node["at_least"] = self.at_least_random.choice(("all", "all", 1, 2))
            self.features["at least"] += 1
        self.modify(node, kind, scope, variable)
        return node, kind

    @staticmethod
    def node_kind(node: dict[str, Any]) -> str:
        for kind in ("agent", "tool", "first_of", "loop", "plan", "verify", "ask"):
            if kind in node:
                return kind
        return "call by name" if isinstance(node["call"], str) else "call of a block"

    def random_node(self, scope: _BodyScope) -> tuple[dict[str, Any], ValueKind]:
        if self.likely(0.06):
            return self.plan(scope), "text"
        roll = self.random.random()
        if roll < 0.34:
            return self.agent(scope)
        if roll < 0.68:
            return self.tool(scope)
        if roll < 0.76:
            return self.first_of(scope), "text"
        if roll < 0.82:
            return self.ask(scope)
        if roll < 0.87 and (reading := self.pick(scope, "reading")):
            return {"verify": f"${{{reading}}}", **self.random_checks(scope, escalate=False)}, "reading"
        if scope.depth < 2:
            if roll < 0.90:
                return {"call": self.block(scope)}, "text"
            if roll < 0.94:
                return self.call(scope), "text"
            return {"loop": self.loop(scope)}, "text"
        return self.tool(scope)

    def agent(self, scope: _BodyScope) -> tuple[dict[str, Any], ValueKind]:
        roll = self.random.random()
        if roll < 0.5 and self.choice_random.random() < 0.2:
            return {"agent": self.choice(scope), "with": {"text": self.text(scope)}}, "text"
        if roll < 0.4:
            return {"agent": "writer", "with": {"text": self.text(scope)}}, "text"
        if roll < 0.5:
            return {"agent": "guest", "with": {"text": self.text(scope)}}, "text"
        if roll < 0.65:
            return {"agent": "judge", "with": {"text": self.text(scope)}}, "flag"
        if self.back_off_random.random() < 0.15:
            return self.backing_off(scope), "texts"
        if self.back_off_random.random() < 0.15:
            return self.combined(scope), "reading"
        question, context = self.words(3), self.text(scope)
        node: dict[str, Any] = {"agent": "reader", "with": {"question": question, "context": context}}
        return node | (self.random_checks(scope, against=context) if self.likely(0.7) else {}), "reading"

    def choice(self, scope: _BodyScope) -> dict[str, Any]:
        """Returns a node that chooses one agent of several, by a label of any type."""
        text = self.choice_random.choice([path for path, kind in scope.references if kind == "text"][-4:])
        flags = [path for path, kind in scope.references if kind == "flag"]
        by, labels = self.choice_random.choice(
            ((f"${{{text}}}", ["iron", "a", "of"]), (f"${{size({text}) > 8}}", ["true", "false"]))
        )
        if flags and self.choice_random.random() < 0.6:
            by, labels = f"${{{self.choice_random.choice(flags)}}}", ["yes", "no"]
        agents = ["writer", "guest", self.choice_random.choice(("writer", "guest"))]
        choice: dict[str, Any] = {"by": by, "of": dict(zip(labels, agents, strict=False))}
        if by == f"${{{text}}}" or self.choice_random.random() < 0.4:
            del choice["of"][labels[1]]
            choice["otherwise"] = self.choice_random.choice(("writer", "guest"))
        self.features["one agent of several"] += 1
        return choice

    def backing_off(self, scope: _BodyScope) -> dict[str, Any]:
        """Returns a node that keeps the parts of an answer that the evidence supports."""
        node: dict[str, Any] = {"agent": "lister", "with": {"text": self.text(scope)}, "against": self.text(scope)}
        node["checks"] = self.back_off_random.choice(
            (["entailment"], ["schema", "entailment"], ["entailment", "confidence"], ["entailment", "tool(fair)"])
        )
        node["otherwise"] = self.back_off_random.choice((["back_off", "abstain"], ["back_off"]))
        if self.back_off_random.random() < 0.5:
            node["accept"] = self.back_off_random.choice((0.2, 0.7, 0.9))
        self.features["backs off"] += 1
        return node

    def combined(self, scope: _BodyScope) -> dict[str, Any]:
        """Returns a node with an answer that is accepted by the combination of its checks."""
        context = self.text(scope)
        node: dict[str, Any] = {
            "agent": "reader",
            "with": {"question": self.words(3), "context": context},
            "against": context,
        }
        node |= {
            "checks": list(COMBINED_CHECKS),
            "score": "combined",
            "accept": self.back_off_random.choice((0.2, 0.4, 0.6)),
        }
        if self.back_off_random.random() < 0.6:
            node["otherwise"] = self.back_off_random.choice((["retry", "abstain"], ["escalate"], ["ask"], ["abstain"]))
        self.features["score combined"] += 1
        return node

    def random_checks(self, scope: _BodyScope, *, against: str = "", escalate: bool = True) -> dict[str, Any]:
        found: dict[str, Any] = {"checks": self.random.choice((["quote"], ["schema", "quote"], ["quote", "support"]))}
        if self.check_random.random() < 0.5:
            again = (
                ["rederive(second)", "quote | agree(2)", "entailment | rederive(second) | agree(3)"] if escalate else []
            )
            plain = ["entailment", "quote | entailment", "quote & entailment", "tool(fair)", "tool(fair) | entailment"]
            found["checks"] = [*found["checks"], self.check_random.choice([*plain, *again])]
            self.features["checks that ask agents"] += 1
        self.features["checks"] += 1
        found["against"] = against or self.text(scope)
        self.features["against"] += 1
        if self.likely(0.5):
            found["accept"] = self.random.choice((0.2, 0.5, 0.9))
            self.features["accept"] += 1
        if escalate and self.likely(0.8):
            found["otherwise"] = self.random.choice(
                (["retry"], ["retry", "escalate", "abstain"], ["escalate"], ["retry", "abstain"])
            )
            self.features["otherwise"] += 1
            self.features["escalate"] += "escalate" in found["otherwise"]
        if self.check_random.random() < 0.3:
            found["otherwise"] = [*(one for one in found.get("otherwise", ()) if one != "abstain"), "ask"]
            self.features["ask where not accepted"] += 1
        return found

    def tool(self, scope: _BodyScope) -> tuple[dict[str, Any], ValueKind]:
        texts = self.pick(scope, "texts")
        roll = self.random.random()
        if roll < 0.25:
            return {"tool": "split", "with": {"text": self.text(scope)}}, "texts"
        if texts and roll < 0.5:
            return (
                ({"tool": "count", "with": {"items": f"${{{texts}}}"}}, "number")
                if self.likely(0.5)
                else (
                    {"tool": "join", "with": {"items": f"${{{texts}}}"}},
                    "text",
                )
            )
        if roll < 0.65:
            return {"tool": "shout", "with": {"text": self.text(scope)}}, "text"
        name = self.random.choice(list(EFFECTS))
        self.features[f"effect {EFFECTS[name]}"] += 1
        return {"tool": name, "with": {"text": self.text(scope)}}, "text"

    def first_of(self, scope: _BodyScope) -> dict[str, Any]:
        arms = [f"${{{self.pick(scope, 'text')}}}" for _ in range(self.random.randint(1, 3))]
        return {"first_of": [*arms, "nothing"]}

    def ask(self, scope: _BodyScope) -> tuple[dict[str, Any], ValueKind]:
        question = f"Is this right: {self.text(scope)}?"
        match self.random.randrange(3):
            case 0:
                return {"ask": question, "options": ["yes", "no"]}, "text"
            case 1:
                return {"ask": question, "returns": "int"}, "number"
            case _:
                return {"ask": question}, "text"

    def block(self, scope: _BodyScope) -> dict[str, Any]:
        inner = scope.inner()
        nodes = self.nodes(inner, self.random.randint(1, 3))
        return {"nodes": nodes, "output": self.output(inner, single=True)}

    def call(self, scope: _BodyScope) -> dict[str, Any]:
        name = f"inner{len(self.called)}"
        self.called[name] = {}
        self.called[name] = self.workflow(name, scope.depth + 1)
        return {"call": name, "with": {"text": self.text(scope)}}

    def loop(self, scope: _BodyScope) -> dict[str, Any]:
        inner = scope.inner()
        first = self.name()
        inner.names.append(first)
        inner.references.append((first, "text"))
        nodes = {
            first: {"tool": "grow", "with": {"text": "${previous}"}},
            **self.nodes(inner, self.random.randint(0, 2)),
        }
        most = self.random.randint(1, 5)
        until = self.random.choice(
            (f"${{turn >= {self.random.randint(1, 4)}}}", f"${{size({first}) > {self.random.randint(2, 6)}}}")
        )
        return {"nodes": nodes, "output": self.output(inner, single=True), "until": until, "at_most": most}

    def plan(self, scope: _BodyScope) -> dict[str, Any]:
        acting = [name for name in EFFECTS if self.likely(0.2)]
        tools = ["shout", *(name for name in ("split", "join", "count") if self.likely(0.6)), *acting]
        node: dict[str, Any] = {
            "plan": self.text(scope),
            "with": {"text": self.text(scope)},
            "tools": tools,
            "returns": "str",
        }
        if self.likely(0.7):
            node["agents"] = [self.random.choice(("writer", "guest"))]
        node["limits"] = {"steps": self.random.randint(2, 5), "width": self.random.choice((1, 2, 4))}
        node |= {"repairs": self.random.randint(0, 3), "replans": self.random.choice((0, 1, 1, 2))}
        node["streaming"] = self.likely(0.8)
        node |= {"stepwise": self.likely(0.85), "copied": self.likely(0.3), "anyway": self.likely(0.3)}
        if acting:
            node |= {"confirm": False, "literals": len(tools) % 2 == 1}
        if self.grounding_random.random() < 0.3:
            node["grounded"] = True
            self.features["plan grounded"] += 1
        if self.choice_random.random() < 0.25:
            node["votes"] = self.choice_random.randint(2, 4)
            self.features["votes"] += 1
        if self.likely(0.2):
            node["shortlist"] = self.random.randint(1, 3)
        self.features["plan that may act"] += bool(acting)
        self.features["plan before it runs"] += not node["streaming"]
        self.features["plan at once"] += not node["stepwise"]
        self.features["plan anyway"] += node["anyway"]
        self.features["plan of a shortlist"] += "shortlist" in node
        return node

    # Modifiers

    def modify(self, node: dict[str, Any], kind: ValueKind, scope: _BodyScope, variable: str) -> None:
        if self.likely(0.14):
            node["when"] = self.condition(scope, of=variable if variable and self.likely(0.6) else "")
            self.features["when"] += 1
        if scope.names and self.likely(0.12):
            node["after"] = [self.random.choice(scope.names)]
            self.features["after"] += 1
        if "agent" in node and self.check_random.random() < 0.25:
            seen = [path for path, of in scope.references if of == "text"]
            node["escalate"] = (
                f"${{size({variable or self.check_random.choice(seen)}) > {self.check_random.choice((2, 8, 20))}}}"
            )
            self.features["larger at once"] += 1
        calls = "agent" in node or "tool" in node
        if calls and self.likely(0.35):
            wait = self.random.choice(([0.5, 8.0], [0.0, 0.0], [5.0, 30.0]))
            node["retry"] = {"attempts": self.random.choice((1, 2, 3, 3, 5)), "wait": wait}
            self.features["retry"] += 1
            if self.likely(0.2):
                node["retry"]["within"] = self.random.choice((1.0, 10.0, 100.0))
                self.features["retry within"] += 1
        if self.likely(0.4 if calls else 0.25) and ("first_of" not in node and "verify" not in node):
            node["timeout"] = self.random.choice((5.0, 30.0, 300.0))
            self.features["timeout"] += 1
        if self.likely(0.3):
            fallback: dict[ValueKind, Any] = {
                "text": "fallen back",
                "number": 7,
                "texts": ["fallen", "back"],
                "flag": "no",
            }
            if (value := fallback.get(kind)) is not None and "options" not in node:
                node["fallback"] = f"${{{self.pick(scope, 'text')}}}" if kind == "text" and self.likely(0.4) else value
                self.features["fallback"] += 1
