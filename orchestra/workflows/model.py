"""The frozen model of a workflow. YAML and Python compile to it, and both can be written from it.

Strings may contain CEL references in `${...}`. A string that is exactly one reference keeps the type of the value; any
other string is text. Field names with a trailing underscore (`as_`, `with_`, `schema_`) are written without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from orchestra.core.labels import Label

Identifier: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
"""The name of a workflow, node, input or `as` variable. The compiler also refuses `__x__` and CEL keywords."""
Template: TypeAlias = Any
"""JSON whose strings may hold `${...}`."""
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
HumanTimeout: TypeAlias = Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)]
"""Seconds that a person may take: 366 days at most."""
AtLeast: TypeAlias = Literal["all"] | Annotated[int, Field(ge=1, le=10_000)]
"""Elements of a list that must have a value. `all` does not count the elements that a condition skips."""
Action: TypeAlias = Literal["retry", "escalate", "ask", "back_off", "abstain"]


CONFIDENCE = "confidence"
"""The check on the output of a workflow as a whole."""


class WorkflowModel(BaseModel):
    """A frozen model that refuses unknown keys and is filled by field name or by alias.

    The validator is built at first use (`defer_build`), so that an import builds none. The validator of `Graph` covers
    all nested models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True, defer_build=True)


class Input(WorkflowModel):
    """An input of a workflow: its type as text, such as `list[Document]`, and a default that makes it optional."""

    type: str
    default: Any = None
    optional: bool = False
    description: str = ""


class Budget(WorkflowModel):
    """Limits of one run, or of each call of a workflow by another one.

    `tokens` counts prompt and output together. `seconds` is active wall-clock time. `calls` counts calls of models and
    other agents.
    `money` is in the currency of the fleet's prices. `check_tokens` is the part of `tokens` that model checks may
    spend; only the workflow of the run can set it.
    """

    tokens: Annotated[int, Field(gt=0)] | None = None
    seconds: Seconds | None = None
    calls: Annotated[int, Field(gt=0)] | None = None
    money: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    check_tokens: Annotated[int, Field(gt=0)] | None = None

    def with_defaults(self, other: Budget | None) -> Budget:
        """Returns these limits, filled up with the limits of another budget."""
        return self if other is None else other.model_copy(update=self.model_dump(exclude_none=True))


class Retry(WorkflowModel):
    """The number of attempts, and the wait between them: exponential backoff from the first to at most the second
    number of seconds.

    No attempt is planned later than `within` seconds after the first one began.
    """

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    wait: tuple[Annotated[float, Field(ge=0, le=3600)], Annotated[float, Field(ge=0, le=3600)]] = (0.5, 8.0)
    within: Seconds | None = None


DEFAULT_RETRY = Retry.model_construct()
"""The policy of nodes without `retry`. Defaults are constructed without validation, which would build the validator at
import.
"""


class Node(WorkflowModel):
    """The keys that every kind of node takes."""

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
    """How the scores of the checks are combined: by the agent's fitted combination instead of the minimum."""
    accept: Literal["certified"] | Annotated[float, Field(ge=0, le=1)] | None = None
    otherwise: tuple[Action, ...] = ()


class AgentChoice(WorkflowModel):
    """A choice among agents: `by` gives a label, `of` maps labels to agents, and `otherwise` is the agent for all other
    labels.
    """

    by: str
    of: Annotated[Mapping[str, str], Field(min_length=1)]
    otherwise: str | None = None


class AgentNode(Node):
    """Calls an agent, by name or by a choice. `tools` are the tools with effects from the agent's card that it may use
    here.
    `escalate` is a condition: if it holds, the fleet's larger model is called at once.
    """

    agent: str | AgentChoice
    with_: Mapping[str, Template] = Field(default={}, alias="with")
    escalate: str | None = None
    tools: tuple[str, ...] = ()


class ToolNode(Node):
    """Calls a registered Python function."""

    tool: str
    with_: Mapping[str, Template] = Field(default={}, alias="with")


class NodeBlock(WorkflowModel):
    """A group of nodes with one output. The nodes see all names of the enclosing scope."""

    nodes: Mapping[Identifier, AnyNode]
    output: Template


class CallNode(Node):
    """Runs another workflow by name, or an inline block."""

    call: str | NodeBlock
    with_: Mapping[str, Template] = Field(default={}, alias="with")


class FirstOfNode(Node):
    """Takes the value of the first arm, in written order, that has one."""

    first_of: Annotated[tuple[Template, ...], Field(min_length=1)]


class LoopBlock(NodeBlock):
    """A block that is repeated until a condition holds. `turn` counts from 1; `previous` is the output of the last turn
    or null.
    """

    at_most: Annotated[int, Field(ge=1, le=100)]
    until: str


class LoopNode(Node):
    """Repeats a block; its value is the last turn's output."""

    loop: LoopBlock


class PlanLimits(WorkflowModel):
    """Limits of the size of a plan."""

    steps: Annotated[int, Field(ge=1, le=100)] = 8
    width: Annotated[int, Field(ge=1, le=100)] = 4


ANYTHING = "anything"
"""The value of `returns` for a plan that may return any value, and more than one."""
REQUEST = "request"
"""The name of the value that contains the request to the router."""
ASK_WORKFLOW = "ask"
"""The workflow of a request of `orchestra ask`."""
PLAN_WORKFLOW = "plan"
"""The recorded name of a run that stops when the plan of its request is accepted, as of `orchestra plan`."""


class PlanNode(Node):
    """Lets the router write a part of the workflow at run time."""

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
    rules: bool = False
    hearsay: tuple[str, ...] = ()
    anyway: bool = False
    shortlist: Annotated[int, Field(ge=1, le=100)] | None = None


class VerifyNode(Node):
    """Checks a finished value, such as a record of several outputs."""

    verify: Template


class AskNode(Node):
    """Asks a person."""

    ask: str
    returns: str = "str"
    options: tuple[str, ...] = ()
    timeout: HumanTimeout | None = None


NODE_KINDS: tuple[str, ...] = ("agent", "tool", "call", "first_of", "loop", "plan", "verify", "ask")
"""The keys that determine the kind of a node. A node has exactly one of them."""


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
    """Modifiers of the nodes that do not set them."""

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
    """The score from which the output is accepted as a whole: a number, or the threshold of the workflow's
    certificate.
    """
    nodes: Annotated[Mapping[Identifier, AnyNode], Field(min_length=1)]

    @property
    def as_single_node(self) -> Graph:
        """Returns the graph with `accept` as one node that calls the whole workflow and checks its output; itself
        without `accept`.
        """
        if self.accept is None:
            return self
        name = self.name if self.name != "input" else "input_"
        block = NodeBlock.model_construct(nodes=self.nodes, output=self.output)
        call_node = CallNode.model_construct(
            call=block, checks=(CONFIDENCE,), accept=self.accept, otherwise=("abstain",)
        )
        return self.model_copy(update={"nodes": {name: call_node}, "output": f"${{{name}}}", "accept": None})
