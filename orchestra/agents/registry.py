"""The registry: all agents, tools and models of a project. It is immutable; `with_*` methods return a larger one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestra.agents.card import CARD_FILE, Card
from orchestra.agents.card_file import NAME_PATTERN
from orchestra.agents.card_types import project_models
from orchestra.agents.contract import Catalog, Contract, Schema
from orchestra.agents.ensemble import join_members
from orchestra.agents.tools import ToolDeclaration, ToolFunction
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.lazy_mapping import LazyMapping
from orchestra.core.resources import builtin_folder as builtin_folder
from orchestra.core.suggestions import closest_match
from orchestra.schema.strict_yaml import load_yaml


def _no_tool(name: str) -> ToolFunction:
    raise KeyError(name)


@dataclass(frozen=True)
class Registry:
    """Names of agents, tools and models. Later additions come first."""

    cards: Mapping[str, Card] = field(default_factory=dict)
    tools: LazyMapping[ToolFunction] = field(default_factory=lambda: LazyMapping((), _no_tool))
    python_agents: Mapping[str, ToolFunction] = field(default_factory=dict)
    """Functions of agents of kind `python`, by the agent's name."""
    models: Mapping[str, Schema] = field(default_factory=project_models)
    broken: Mapping[str, InputError] = field(default_factory=dict)
    """Errors of cards that cannot be used, by name. They are raised only for these agents."""

    @classmethod
    def load(
        cls,
        folders: Iterable[Path] = (),
        *,
        builtin: bool = True,
        models: Mapping[str, Schema] | None = None,
        check: Callable[[Path], None] | None = None,
    ) -> Registry:
        """Loads the cards of these folders of agents, and of the package.

        Earlier folders take precedence. A broken card hides cards of the same name in later folders, as a valid one
        does; `broken` has its error.

        Args:
            check: Raises `InputError` for the folder of a card that must not be read.
        """
        known_types = {**project_models(), **(models or {})}
        cards: dict[str, Card] = {}
        errors: dict[str, InputError] = {}
        beside: dict[Path, dict[str, Card]] = {}
        places, path = [*folders], builtin_folder("agents")
        if builtin and path.resolve() not in [
            folder.resolve() for folder in places
        ]:  # in a checkout, the folder can be that of the package
            places.append(path)
        for folder in places:
            folder_cards, faulty = _load_folder(folder, known_types, check)
            beside[folder] = folder_cards
            taken_names = {*cards, *errors}
            cards |= {name: card for name, card in folder_cards.items() if name not in taken_names}
            errors |= {name: error for name, error in faulty.items() if name not in taken_names}
        loaded_cards: dict[str, Card] = {}
        for name, card in cards.items():
            try:
                loaded_cards[name] = _join_members(
                    card, {**cards, **(beside[card.folder.parent] if card.folder is not None else {})}, errors
                )
            except InputError as error:
                errors[name] = error
        return cls(cards=loaded_cards, models=known_types, broken=errors)

    def with_cards(self, cards: Iterable[Card]) -> Registry:
        """Returns the registry with these agents.

        Raises:
            InputError: A019 if a member of an ensemble does not exist, A024 if an agent cannot be a member.
        """
        all_cards = {**self.cards, **{card.name: card for card in cards}}
        errors = {name: error for name, error in self.broken.items() if name not in all_cards}
        return replace(
            self,
            cards={name: _join_members(card, all_cards, errors) for name, card in all_cards.items()},
            broken=errors,
        )

    def with_tools(self, tools: Iterable[ToolDeclaration | ToolFunction]) -> Registry:
        """Returns the registry with these tools, including agents in Python (contracts of kind `agent`)."""
        functions = [_to_function(tool) for tool in tools]
        return replace(
            self,
            tools=self.tools.extend({tool.name: tool for tool in functions if tool.contract.kind == "tool"}),
            python_agents={
                **self.python_agents,
                **{tool.name: tool for tool in functions if tool.contract.kind == "agent"},
            },
        )

    def with_lazy_tools(self, names: Iterable[str], load: Callable[[str], ToolDeclaration]) -> Registry:
        """Returns the registry with these tools as its first ones. Each is loaded when it is first used.

        Args:
            names: The names of the tools.
            load: Returns the declaration of a tool.
        """
        return replace(self, tools=LazyMapping(names, lambda name: _to_function(load(name)), self.tools))

    def with_models(self, models: Mapping[str, Schema]) -> Registry:
        """Returns the registry with these models."""
        return replace(self, models={**self.models, **models})

    def check_usable(self, name: str) -> None:
        """Raises the `InputError` of a broken card."""
        if (error := self.broken.get(name)) is not None:
            raise error.with_traceback(None)  # the same exception object is raised each time

    def card(self, name: str) -> Card:
        """Returns the card of an agent.

        Raises:
            InputError: A001 with the nearest name, or the error of a broken card.
        """
        self.check_usable(name)
        if (card := self.cards.get(name)) is None:
            raise InputError(
                "A001",
                f"there is no agent {name!r}",
                hint=_name_hint(name, [*self.cards, *self.python_agents], "agents"),
            )
        return card

    def tool(self, name: str) -> ToolFunction:
        """Returns a tool.

        Raises:
            InputError: T005 with the nearest name.
        """
        if (tool := self.tools.get(name)) is None:
            raise InputError("T005", f"there is no tool {name!r}", hint=_name_hint(name, self.tools, "tools"))
        return tool

    def python_agent(self, name: str) -> ToolFunction:
        """Returns the function of an agent of kind `python`.

        Raises:
            InputError: A010 if no module registered it.
        """
        if (function := self.python_agents.get(name)) is None:
            raise InputError(
                "A010",
                f"no code is registered for the agent {name!r}",
                hint='name its module under modules = ["..."] in orchestra.toml',
            )
        return function

    @property
    def agents(self) -> dict[str, Contract]:
        """The contracts of all agents. A Python agent with a broken card is left out, because the card has its
        types.
        """
        return {
            **{name: function.contract for name, function in self.python_agents.items() if name not in self.broken},
            **{name: card.contract for name, card in self.cards.items()},
        }

    def catalog(self, workflows: Mapping[str, Any] | None = None) -> Catalog:
        """Returns the catalog for workflows. `workflows` maps names to frozen graphs."""
        tools = LazyMapping(self.tools, lambda name: self.tools[name].contract)
        return Catalog(
            agents=self.agents, tools=tools, workflows=workflows or {}, models=dict(self.models), broken=self.broken
        )


def _to_function(tool: ToolDeclaration | ToolFunction) -> ToolFunction:
    return tool if isinstance(tool, ToolFunction) else ToolFunction(tool.contract, tool.function)


def _load_folder(
    folder: Path, models: Mapping[str, Schema], check: Callable[[Path], None] | None
) -> tuple[dict[str, Card], dict[str, InputError]]:
    """Loads the cards of a folder of agents. Returns the valid ones and the errors of the others, by name."""
    cards: dict[str, Card] = {}
    errors: dict[str, InputError] = {}
    for path in _card_folders(folder):
        try:
            if check is not None:
                check(path)
        except InputError as error:
            errors[path.name] = error
            continue
        try:
            card = Card.load(path, models)
        except InputError as error:
            errors[_stated_name(path)] = error
            continue
        if card.name in cards:
            hint = f"{cards[card.name].folder}/{CARD_FILE} has it already; rename one"
            errors[card.name] = InputError(
                "A009",
                f"two agents are named {card.name!r}",
                location=SourceLocation(str(path / CARD_FILE), 1),
                hint=hint,
            )
        cards[card.name] = card
    return {name: card for name, card in cards.items() if name not in errors}, errors


def _stated_name(path: Path) -> str:
    """Returns the name that a broken card states, or the name of its folder if it states no valid one."""
    try:
        value = load_yaml((path / CARD_FILE).read_bytes(), str(path / CARD_FILE)).value
    except (OSError, InputError):
        return path.name
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) and NAME_PATTERN.fullmatch(name) else path.name


def _join_members(card: Card, cards: Mapping[str, Card], errors: Mapping[str, InputError]) -> Card:
    """Returns an ensemble with its members. Agents of the same folder come first, so that a project's agents do not
    change a packaged ensemble.

    Raises:
        InputError: A019, A024, or the error of a broken member.
    """
    if not card.member_cards and (
        name := next((name for name in card.members if name in errors and name not in cards), None)
    ):
        raise errors[name].with_traceback(None)
    return join_members(card, cards)


def _card_folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if (path / CARD_FILE).is_file())


def _name_hint(name: str, tools: Iterable[str], kind: str) -> str:
    names = sorted(tools)
    near = closest_match(name, names)
    return f"did you mean {near!r}?" if near else f"{kind}: {', '.join(names) or 'none'}"
