"""Programs: compiled workflows, as the engine runs them. Integers and adjacency, no names to look up in the hot loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgspec

from orchestra.agent.contract import Contract, Schema
from orchestra.values.labels import Label
from orchestra.workflow.nodes import RETRY, Action, AnyNode, Budget, Graph, Retry


class Expression(Protocol):
    """A compiled template: JSON whose strings may hold CEL."""

    @property
    def references(self) -> frozenset[str]:
        """The names that it reads: `input`, node names, `as` variables, `turn`, `previous`."""

    @property
    def schema(self) -> Schema:
        """The type of what it gives."""

    @property
    def parts(self) -> Mapping[str, Expression] | None:
        """Of a template that is a mapping: its entries, each an expression of its own; None for any other."""

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Its value; `bindings` has at least its references. Raises `OrchestraError` (L-codes) where CEL fails at run time."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """When an attempt's value becomes the node's value. `accept` is a score in [0, 1]; `certified` was resolved or refused."""

    checks: tuple[str, ...] = ()
    against: Expression | None = None
    accept: float = 0.5
    otherwise: tuple[Action, ...] = ("abstain",)


class CompiledNode(msgspec.Struct, frozen=True, gc=False):
    """One node, with everything resolved that can be resolved before a run.

    A program is a tree. The collector finds no cycle in it, and what it need not look at is out of its count too (`gc=False`, also of
    paths and the like): looking took a seventh of the time of compiling.
    """

    index: int
    name: str
    kind: str
    source: AnyNode
    output: Schema
    """Type of the node's value; under `each` the type of one element's value."""
    needs: tuple[int, ...]
    """Indices of the nodes of the same program that must have finished before it: references and `after`."""
    children: tuple[int, ...]
    tolerant: bool
    """Whether it runs although needs ended in a non-value: `first_of` does; so do readers of `.values` and bare `after`."""
    soft: frozenset[int]
    """The needs whose non-value it does not inherit."""
    height: int
    """Nodes on the longest way from here to a sink, itself included: the critical path, for priority."""
    contract: Contract | None = None
    """Of the agent or tool that it calls."""
    inputs: Expression | None = None
    when: Expression | None = None
    each: Expression | None = None
    variable: str = ""
    limit: int = 10_000
    concurrency: int | None = None
    arms: tuple[Expression, ...] = ()
    """Of `first_of`, in written order."""
    body: Program | None = None
    """Of `call` and `loop`."""
    until: Expression | None = None
    at_most: int = 1
    value: Expression | None = None
    """What a `verify` node judges."""
    fallback: Expression | None = None
    retry: Retry = RETRY
    timeout: float | None = None
    acceptance: Acceptance | None = None


@dataclass(frozen=True, slots=True)
class InputField:
    """One input of a program: its type, and its default where `required` is false."""

    schema: Schema
    required: bool = True
    default: Any = None
    description: str = ""


@dataclass(frozen=True)
class Program:
    """A compiled workflow, or the body of a loop or a block; bodies see the bindings of what surrounds them."""

    name: str
    nodes: tuple[CompiledNode, ...]
    """In topological order."""
    output: Expression
    output_schema: Schema
    inputs: Mapping[str, InputField]
    graph: Graph | None = None
    """The frozen source; None for bodies."""
    budget: Budget | None = None
    label: Label = "internal"
    warnings: tuple[str, ...] = ()
    lexical: bool = False
    """Whether it sees the bindings around it (blocks and loops), or only its inputs (workflows)."""

    @cached_property
    def waits(self) -> list[int]:
        """How many needs each node has."""
        return [len(node.needs) for node in self.nodes]

    @cached_property
    def longest(self) -> int:
        """Nodes on the critical path."""
        return max((node.height for node in self.nodes), default=0)

    @cached_property
    def first(self) -> list[CompiledNode]:
        """The nodes that need no other."""
        return [node for node in self.nodes if not node.needs]
