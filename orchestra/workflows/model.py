"""The frozen model of a workflow: what YAML and Python both compile to, and are both written from.

Texts that may hold references are CEL in `${...}`; a text that is one reference and nothing else keeps the value's type,
any other is a string. Field names with a trailing underscore (`as_`, `with_`, `schema_`) are written without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from orchestra.core.labels import Label

Identifier: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
"""Of a workflow, node, input or `as` variable. The compiler also refuses `__x__` and CEL's keywords."""
Template: TypeAlias = Any
"""JSON whose strings may hold `${...}`."""
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
HumanTimeout: TypeAlias = Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)]
"""Seconds, as many as people may take: 366 days at most."""
AtLeast: TypeAlias = Literal["all"] | Annotated[int, Field(ge=1, le=10_000)]
"""How many elements of a list must have a value; of `all`, those that a condition skips are none."""
Action: TypeAlias = Literal["retry", "escalate", "ask", "back_off", "abstain"]


CONFIDENCE = "confidence"
"""The check that a workflow's output is judged by as a whole."""


class WorkflowModel(BaseModel):
    """A frozen model that refuses unknown keys and is filled by field name or by alias.

    Its validator is built when first used (`defer_build`): importing builds none, and that of `Graph` serves all that stands in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True, defer_build=True)


class Input(WorkflowModel):
    """An input of a workflow: its type as text, such as `list[Document]`, and a default that makes it optional."""

    type: str
    default: Any = None
    optional: bool = False
    description: str = ""


class Budget(WorkflowModel):
    """Limits of one run, or, on a workflow that another one calls, of each such call.

    `tokens`: prompt and output together. `seconds`: active wall-clock time. `calls`: calls of models and other agents. `money`: in the
    currency of the fleet's prices. `check_tokens`: the part of `tokens` that checks may spend on asking agents; only the run's own
    workflow can set it.
    """

    tokens: Annotated[int, Field(gt=0)] | None = None
    seconds: Seconds | None = None
    calls: Annotated[int, Field(gt=0)] | None = None
    money: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    check_tokens: Annotated[int, Field(gt=0)] | None = None

    def with_defaults(self, other: Budget | None) -> Budget:
        """These limits, and those of another budget that this one does not state."""
        return self if other is None else other.model_copy(update=self.model_dump(exclude_none=True))


class Retry(WorkflowModel):
    """Attempts in all, and the wait between them: exponential from the first to at most the second number of seconds.

    `within` seconds after the first attempt began no other one is planned.
    """

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    wait: tuple[Annotated[float, Field(ge=0, le=3600)], Annotated[float, Field(ge=0, le=3600)]] = (0.5, 8.0)
    within: Seconds | None = None


DEFAULT_RETRY = Retry.model_construct()
"""The policy of nodes that state none. Defaults are constructed, because validating one would build its validator at the import."""


class Node(WorkflowModel):
    """The modifiers that every kind takes."""

    when: str | None = None
    each: str | None = None
    as_: Identifier | None = Field(default=None, alias="as")
    limit: Annotated[int, Field(ge=1, le=10_000)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None
    at_least: AtLeast | None = None
    after: tuple[Identifier, ...] = ()
    retry: Retry | None = None
    timeout: Seconds | None = None
    fallback: Template = None
    checks: tuple[str, ...] = ()
    against: Template = None
    score: Literal["combined"] | None = None
    """How the scores of the checks become one: as the agent's combination says, and not the lowest of them."""
    accept: Literal["certified"] | Annotated[float, Field(ge=0, le=1)] | None = None
    otherwise: tuple[Action, ...] = ()


class AgentChoice(WorkflowModel):
    """One agent of several: `by` gives a label, `of` has the agents by label, and `otherwise` the one for all other labels."""

    by: str
    of: Annotated[Mapping[str, str], Field(min_length=1)]
    otherwise: str | None = None


class AgentNode(Node):
    """Asks a specialist, by name or as a choice says. `tools` are those of its card that have effects, and that it may use here.
    `escalate` is a condition: where it holds, the fleet's larger model is asked at once."""

    agent: str | AgentChoice
    with_: Mapping[str, Template] = Field(default={}, alias="with")
    escalate: str | None = None
    tools: tuple[str, ...] = ()


class ToolNode(Node):
    """Calls registered Python."""

    tool: str
    with_: Mapping[str, Template] = Field(default={}, alias="with")


class NodeBlock(WorkflowModel):
    """Nodes of their own with one output; they see everything around them."""

    nodes: Mapping[Identifier, AnyNode]
    output: Template


class CallNode(Node):
    """Runs another workflow by name, or a block that stands here."""

    call: str | NodeBlock
    with_: Mapping[str, Template] = Field(default={}, alias="with")


class FirstOfNode(Node):
    """The first of its arms, in written order, that ends in a value."""

    first_of: Annotated[tuple[Template, ...], Field(min_length=1)]


class LoopBlock(NodeBlock):
    """Turns a block until a condition holds. In it `turn` counts from 1, and `previous` is the last turn's output or null."""

    at_most: Annotated[int, Field(ge=1, le=100)]
    until: str


class LoopNode(Node):
    """Repeats a block; its value is the last turn's output."""

    loop: LoopBlock


class PlanLimits(WorkflowModel):
    """How large a plan may be."""

    steps: Annotated[int, Field(ge=1, le=100)] = 8
    width: Annotated[int, Field(ge=1, le=100)] = 4


ANYTHING = "anything"
"""What a plan `returns` that may give any value, and more than one."""
REQUEST = "request"
"""The name of the value that is asked of a router."""
ASK_WORKFLOW = "ask"
"""The workflow that a request of `orchestra ask` becomes."""


class PlanNode(Node):
    """Lets the router write a fragment of workflow at run time."""

    plan: Template
    with_: Mapping[str, Template] = Field(default={}, alias="with")
    agents: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    returns: str = "str"
    limits: PlanLimits = PlanLimits.model_construct()
    repairs: Annotated[int, Field(ge=0, le=10)] = 1
    replans: Annotated[int, Field(ge=0, le=10)] = 1
    streaming: bool = True
    router: Identifier = "router"
    larger: Identifier | None = None
    votes: Annotated[int, Field(ge=1, le=16)] = 1
    cache: bool = True
    stepwise: bool = True
    copied: bool = False
    literals: bool = False
    confirm: bool = True
    grounded: bool = False
    each_part: bool = False
    hearsay: tuple[str, ...] = ()
    anyway: bool = False
    shortlist: Annotated[int, Field(ge=1, le=100)] | None = None


class VerifyNode(Node):
    """Judges a finished composite value."""

    verify: Template


class AskNode(Node):
    """Asks a person."""

    ask: str
    returns: str = "str"
    options: tuple[str, ...] = ()
    timeout: HumanTimeout | None = None


NODE_KINDS: tuple[str, ...] = ("agent", "tool", "call", "first_of", "loop", "plan", "verify", "ask")
"""The key that makes a node's kind; a node has exactly one of them."""


_KIND_BY_TYPE: Mapping[type, str] = {
    AgentNode: "agent",
    ToolNode: "tool",
    CallNode: "call",
    FirstOfNode: "first_of",
    LoopNode: "loop",
    PlanNode: "plan",
    VerifyNode: "verify",
    AskNode: "ask",
}


def _node_kind(value: Any) -> str | None:
    if isinstance(value, dict | Mapping):
        for kind in NODE_KINDS:
            if kind in value:
                return kind
        return None
    return _KIND_BY_TYPE.get(type(value)) or next((kind for kind in NODE_KINDS if hasattr(value, kind)), None)


AnyNode: TypeAlias = Annotated[
    Annotated[AgentNode, Tag("agent")]
    | Annotated[ToolNode, Tag("tool")]
    | Annotated[CallNode, Tag("call")]
    | Annotated[FirstOfNode, Tag("first_of")]
    | Annotated[LoopNode, Tag("loop")]
    | Annotated[PlanNode, Tag("plan")]
    | Annotated[VerifyNode, Tag("verify")]
    | Annotated[AskNode, Tag("ask")],
    Discriminator(_node_kind),
]


class Defaults(WorkflowModel):
    """Modifiers for the nodes that state none of their own."""

    retry: Retry | None = None
    timeout: Seconds | None = None


class Graph(WorkflowModel):
    """A workflow: a typed DAG of nodes."""

    schema_: Literal["orchestra/v1"] = Field(default="orchestra/v1", alias="schema")
    name: Identifier
    description: str = ""
    input: Mapping[Identifier, Input] = {}
    types: Mapping[str, Mapping[str, Any]] = {}
    output: Template
    budget: Budget | None = None
    defaults: Defaults | None = None
    label: Label | None = None
    accept: Literal["certified"] | Annotated[float, Field(ge=0, le=1)] | None = None
    """From which score on its output is accepted as a whole: that of its own certificate, or one that is stated."""
    nodes: Annotated[Mapping[Identifier, AnyNode], Field(min_length=1)]

    @property
    def as_single_node(self) -> Graph:
        """The same as one node that calls all of it and judges what it gives, where `accept` says so; itself where nothing is said."""
        if self.accept is None:
            return self
        name = self.name if self.name != "input" else "input_"
        block = NodeBlock.model_construct(nodes=self.nodes, output=self.output)
        whole = CallNode.model_construct(call=block, checks=(CONFIDENCE,), accept=self.accept, otherwise=("abstain",))
        return self.model_copy(update={"nodes": {name: whole}, "output": f"${{{name}}}", "accept": None})
