"""The registry: every agent, tool and model that a project may name. Immutable; `with_*` gives a larger one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from orchestra.agent.card import FILE, Card
from orchestra.agent.contract import Catalog, Contract, Schema
from orchestra.agent.ensemble import joined
from orchestra.agent.faults import together
from orchestra.agent.tool import Declared, ToolFunction
from orchestra.agent.types import project_models
from orchestra.errors import InputError, InputErrors, Place
from orchestra.values.types import nearest


@dataclass(frozen=True)
class Registry:
    """Names and what they stand for. What was added later comes first."""

    cards: Mapping[str, Card] = field(default_factory=dict)
    tools: Mapping[str, ToolFunction] = field(default_factory=dict)
    code: Mapping[str, ToolFunction] = field(default_factory=dict)
    """Functions of agents of kind `python`, by the agent's name."""
    models: Mapping[str, Schema] = field(default_factory=project_models)

    @classmethod
    def load(cls, folders: Iterable[Path] = (), *, builtin: bool = True, models: Mapping[str, Schema] | None = None) -> Registry:
        """The cards of these folders of agents, the first before the later ones, and of the package.

        Raises `InputError`, or `InputErrors` with every fault of every card.
        """
        known = {**project_models(), **(models or {})}
        cards: dict[str, Card] = {}
        found: list[InputError] = []
        beside: dict[Path, dict[str, Card]] = {}
        for folder in [*folders, *([builtin_folder("agents")] if builtin else [])]:
            here = beside[folder] = {}
            for path in _cards(folder):
                try:
                    card = Card.load(path, known)
                except InputErrors as errors:
                    found += errors.errors
                    continue
                except InputError as error:
                    found.append(error)
                    continue
                if card.name in here:
                    hint = f"{here[card.name].folder}/{FILE} has it already; rename one"
                    found.append(InputError("A009", f"two agents are named {card.name!r}", place=Place(str(path / FILE), 1), hint=hint))
                here[card.name] = card
                cards.setdefault(card.name, card)
        if found:
            raise together(found)
        return cls(cards=_joined(cards, beside), models=known)

    def with_cards(self, cards: Iterable[Card]) -> Registry:
        """The registry with these agents. Raises `InputError` A019 or A024 for an ensemble whose members are not there, or cannot be."""
        every = {**self.cards, **{card.name: card for card in cards}}
        return replace(self, cards={name: joined(card, every) for name, card in every.items()})

    def with_tools(self, tools: Iterable[Declared | ToolFunction]) -> Registry:
        """The registry with these tools, and with agents that are Python code (a contract of kind `agent`)."""
        made = [tool if isinstance(tool, ToolFunction) else ToolFunction(tool.contract, tool.function) for tool in tools]
        return replace(
            self,
            tools={**self.tools, **{tool.name: tool for tool in made if tool.contract.kind == "tool"}},
            code={**self.code, **{tool.name: tool for tool in made if tool.contract.kind == "agent"}},
        )

    def with_models(self, models: Mapping[str, Schema]) -> Registry:
        """The registry with these models."""
        return replace(self, models={**self.models, **models})

    def card(self, name: str) -> Card:
        """The card of an agent; raises `InputError` A001 with the nearest name."""
        if (card := self.cards.get(name)) is None:
            raise InputError("A001", f"there is no agent {name!r}", hint=_did_you_mean(name, [*self.cards, *self.code], "agents"))
        return card

    def tool(self, name: str) -> ToolFunction:
        """A tool; raises `InputError` T005 with the nearest name."""
        if (tool := self.tools.get(name)) is None:
            raise InputError("T005", f"there is no tool {name!r}", hint=_did_you_mean(name, self.tools, "tools"))
        return tool

    def code_of(self, name: str) -> ToolFunction:
        """The function of an agent of kind `python`; raises `InputError` A010 where no module registered it."""
        if (function := self.code.get(name)) is None:
            raise InputError(
                "A010", f"no code is registered for the agent {name!r}", hint='name its module under modules = ["..."] in orchestra.toml'
            )
        return function

    @property
    def agents(self) -> dict[str, Contract]:
        """The contracts of all agents, cards and code."""
        return {
            **{name: function.contract for name, function in self.code.items()},
            **{name: card.contract for name, card in self.cards.items()},
        }

    def catalog(self, workflows: Mapping[str, Any] | None = None) -> Catalog:
        """All that a workflow may name; `workflows` maps names to frozen graphs."""
        tools = {name: tool.contract for name, tool in self.tools.items()}
        return Catalog(agents=self.agents, tools=tools, workflows=workflows or {}, models=dict(self.models))


def builtin_folder(name: str) -> Path:
    """A folder that travels with the package (`agents`, `workflows`, `configs`): in the wheel, else in the source tree."""
    packaged = Path(str(resources.files("orchestra"))) / "_builtin" / name
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / name


def _joined(cards: Mapping[str, Card], beside: Mapping[Path, Mapping[str, Card]]) -> dict[str, Card]:
    """The cards, ensembles with their members. Those beside it come first: what a project names otherwise changes no packaged ensemble."""
    made: dict[str, Card] = {}
    found: list[InputError] = []
    for name, card in cards.items():
        try:
            made[name] = joined(card, {**cards, **(beside[card.folder.parent] if card.folder is not None else {})})
        except InputError as error:
            found.append(error)
    if found:
        raise together(found)
    return made


def _cards(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if (path / FILE).is_file())


def _did_you_mean(name: str, known: Iterable[str], what: str) -> str:
    names = sorted(known)
    near = nearest(name, names)
    return f"did you mean {near!r}?" if near else f"{what}: {', '.join(names) or 'none'}"
