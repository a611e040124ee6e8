"""Contracts: what a workflow needs to know of what it calls; and the catalog of all that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from orchestra.core.errors import InputError
from orchestra.core.labels import Label
from orchestra.schema.strict_json import canonical, digest

Schema: TypeAlias = dict[str, Any]
Effect: TypeAlias = Literal["pure", "idempotent", "keyed", "transactional", "once"]
SAFE_EFFECTS: frozenset[Effect] = frozenset({"pure", "idempotent"})
"""Effects of tools that models and checks may call by themselves: twice is as once."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The typed face of an agent or a tool: JSON Schemas of its input (an object) and of its output."""

    name: str
    kind: Literal["agent", "tool"]
    input: Schema
    output: Schema
    description: str = ""
    effect: Effect = "pure"
    max_output: int = 0
    """Output tokens of one call at most; 0 where no model is asked."""
    label: Label = "restricted"
    """The strictest label of data that it may see."""
    checks: tuple[str, ...] = ()
    """Default acceptance, used where a node states none."""
    digest: str = ""
    """Digest of an agent's card, or the one that `with_digest` sets. A run resumes only with the same digest."""
    evidence: str = ""
    """The input that fields of type `Quote` quote from; what a node is judged against where it states no `against`."""
    accept: float | Literal["certified"] | None = None
    otherwise: tuple[Literal["retry", "escalate", "back_off", "abstain"], ...] = ()
    version: str = ""
    """Of the code, as its author counts it; empty for code whose answers must not be remembered."""
    tool_use: ToolUse | None = None
    """Of an agent that uses tools."""
    model_identity: str = ""
    """Digest of an agent's model, adapter and prompt, whatever its name: what answers alike errs alike. Empty where
    that
    is not known; of an ensemble those of its members, with a + between them, and likewise where several models answer
    for one name.
    """

    @property
    def defaults(self) -> dict[str, Any]:
        """What its inputs are where a call leaves them out."""
        fields = self.input.get("properties", {})
        return {
            name: field["default"] for name, field in fields.items() if isinstance(field, dict) and "default" in field
        }

    def with_digest(self) -> Contract:
        """The contract with the digest of what callers rely on: kind, name, types, effect and version. One that has a
        digest keeps it.
        """
        if self.digest:
            return self
        said = [self.kind, self.name, self.input, self.output, self.effect, self.version]
        return replace(self, digest=digest(canonical(said)))


def is_compatible(current: Contract, previous: Contract) -> bool:
    """Whether calls that were written for a tool as it was then mean the same of what it is now: it may have got inputs
    that can be left out, and any of its inputs may be left out now.
    """
    if current.digest == previous.digest:
        return True
    said = ("kind", "name", "output", "effect", "version")
    if any(getattr(current, name) != getattr(previous, name) for name in said):
        return False
    grown = ("properties", "$defs")
    old, new = (
        {key: part for key, part in one.input.items() if key not in (*grown, "required")} for one in (previous, current)
    )
    kept = all(
        current.input.get(group, {}).get(name) == part
        for group in grown
        for name, part in previous.input.get(group, {}).items()
    )
    return old == new and kept and set(current.input.get("required", ())) <= set(previous.input.get("required", ()))


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What an agent with tools may use, and the two ways in which its model is asked: for its next line, and for its
    answer.
    """

    tools: tuple[str, ...]
    agents: tuple[str, ...]
    step_contract: Contract
    answer_contract: Contract
    steps: int = 8
    """Calls at most."""
    width: int = 8
    """Elements of a list that one line may call a tool for."""
    shown: int = 2_000
    """Characters of a result that the model reads."""
    repairs: int = 2
    """Lines that cannot stand, and calls that fail, before the node fails."""


@dataclass(frozen=True)
class Catalog:
    """Everything that a workflow may name. `workflows` maps names to frozen graphs
    (`orchestra.workflows.model.Graph`).
    """

    agents: Mapping[str, Contract] = field(default_factory=dict)
    tools: Mapping[str, Contract] = field(default_factory=dict)
    workflows: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Schema] = field(default_factory=dict)
    checks: frozenset[str] = frozenset(
        {
            "schema",
            "quote",
            "support",
            "numbers",
            "recompute",
            "format",
            "confidence",
            "tool",
            "entailment",
            "rederive",
            "agree",
        }
    )
    certificates: Mapping[str, Any] = field(default_factory=dict)
    """By agent: what `accept: certified` accepts by (`orchestra.verification.certificates.file.Certificate`). One
    that does not hold raises."""
    claims_certificates: Mapping[str, Any] = field(default_factory=dict)
    """By agent: what it keeps parts by where the node backs off
    (`orchestra.verification.certificates.claims_file.ClaimsCertificate`). Likewise."""
    combinations: Mapping[str, Any] = field(default_factory=dict)
    """By agent: what `score: combined` stands for (`orchestra.verification.certificates.combination.Combination`).
    Likewise.
    """
    workflow_certificates: Mapping[str, Any] = field(default_factory=dict)
    """By workflow: the certificate that its output is accepted by as a whole. One that does not hold raises."""
    broken: Mapping[str, InputError] = field(default_factory=dict)
    """By name: what is wrong with agents whose cards cannot be used."""
    stored: bool = False
    """Whether it is what a run began with, or was told since: rules that forbid what a workflow or a plan may do are
    those
    of then.
    """
