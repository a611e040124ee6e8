"""Contracts describe callables to workflows. The catalog lists everything that a workflow may name."""

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
"""Effects of tools that models and checks may call: a repeated call does no harm."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The interface of an agent or a tool: JSON Schemas of its input (an object) and its output."""

    name: str
    kind: Literal["agent", "tool"]
    input: Schema
    output: Schema
    description: str = ""
    effect: Effect = "pure"
    max_output: int = 0
    """Maximum output tokens of one call; 0 if it uses no model."""
    label: Label = "restricted"
    """The strictest label of data that it may process."""
    checks: tuple[str, ...] = ()
    """Default checks, for nodes that state none."""
    digest: str = ""
    """Digest of an agent's card, or the digest set by `with_digest`. A run resumes only with the same digest."""
    evidence: str = ""
    """The input that fields of type `Quote` quote from. Default for a node without `against`."""
    accept: float | Literal["certified"] | None = None
    otherwise: tuple[Literal["retry", "escalate", "back_off", "abstain"], ...] = ()
    version: str = ""
    """Version of the code, set by its author. If empty, results are not memoised."""
    tool_use: ToolUse | None = None
    """Set for agents that use tools."""
    model_identity: str = ""
    """Digest of an agent's model, adapter and prompt, without its name: agents with equal identities make the same
    errors.

    Empty if unknown. The identities of an ensemble's members, or of several models served under one name, are joined by
    `+`.
    """

    @property
    def defaults(self) -> dict[str, Any]:
        """Default values of the inputs that a call may omit."""
        fields = self.input.get("properties", {})
        return {
            name: field["default"] for name, field in fields.items() if isinstance(field, dict) and "default" in field
        }

    def with_digest(self) -> Contract:
        """Returns the contract with a digest of kind, name, types, effect and version. An existing digest is kept."""
        if self.digest:
            return self
        content = [self.kind, self.name, self.input, self.output, self.effect, self.version]
        return replace(self, digest=digest(canonical(content)))


def is_compatible(current: Contract, previous: Contract) -> bool:
    """Whether calls written for an older contract of a tool are valid for the current one.

    The tool may have new optional inputs, and required inputs may have become optional.
    """
    if current.digest == previous.digest:
        return True
    attributes = ("kind", "name", "output", "effect", "version")
    if any(getattr(current, name) != getattr(previous, name) for name in attributes):
        return False
    growing_keys = ("properties", "$defs")
    old, new = (
        {key: part for key, part in contract.input.items() if key not in (*growing_keys, "required")}
        for contract in (previous, current)
    )
    keeps_inputs = all(
        current.input.get(group, {}).get(name) == part
        for group in growing_keys
        for name, part in previous.input.get(group, {}).items()
    )
    return (
        old == new
        and keeps_inputs
        and set(current.input.get("required", ())) <= set(previous.input.get("required", ()))
    )


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of an agent, and the contracts of its two kinds of model calls: for the next line and for the
    answer.
    """

    tools: tuple[str, ...]
    agents: tuple[str, ...]
    step_contract: Contract
    answer_contract: Contract
    steps: int = 8
    """Maximum number of calls."""
    width: int = 8
    """Maximum number of list elements for which one line may call a tool."""
    shown: int = 2_000
    """Maximum characters of a result that are shown to the model."""
    repairs: int = 2
    """Invalid lines and failed calls that are allowed before the node fails."""


@dataclass(frozen=True)
class Catalog:
    """Everything that a workflow may name. `workflows` maps names to graphs (`orchestra.workflows.model.Graph`)."""

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
    """By agent: the certificate of `accept: certified` (`orchestra.verification.certificates.file.Certificate`). Access
    to an invalid one raises.
    """
    claims_certificates: Mapping[str, Any] = field(default_factory=dict)
    """By agent: the certificate by which parts of an answer are kept when a node backs off
    (`orchestra.verification.certificates.claims_file.ClaimsCertificate`). Access to an invalid one raises.
    """
    combinations: Mapping[str, Any] = field(default_factory=dict)
    """By agent: the definition of `score: combined` (`orchestra.verification.certificates.combination.Combination`).
    Access to an invalid one raises.
    """
    workflow_certificates: Mapping[str, Any] = field(default_factory=dict)
    """By workflow: the certificate for its output. Access to an invalid one raises."""
    broken: Mapping[str, InputError] = field(default_factory=dict)
    """By name: the errors of agents whose cards cannot be used."""
    stored: bool = False
    """Whether the catalog was stored by a run. The rules for workflows and plans are then those of that time."""
