"""The messages of A2A 1.0 in its JSON-RPC binding, as far as they are used. Unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

TaskState: TypeAlias = Literal[
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_INPUT_REQUIRED",
]


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class RpcRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of JSON-RPC 2.0."""

    jsonrpc: Literal["2.0"]
    id: str | int
    method: str
    params: dict[str, Any] = {}


class Part(_Message, frozen=True, kw_only=True):
    """A part of a message: a text, data, or a file as base64 or by its address."""

    text: str | None = None
    data: Any = None
    raw: str | None = None
    url: str | None = None
    filename: str = ""
    media_type: str = ""


class Message(_Message, frozen=True, kw_only=True):
    """A message of a user or an agent."""

    message_id: str
    role: str
    parts: tuple[Part, ...]
    context_id: str = ""
    task_id: str = ""
    metadata: dict[str, Any] = {}


class Authentication(_Message, frozen=True, kw_only=True):
    """How the server proves to the receiver of push notifications who it is."""

    scheme: str = ""
    credentials: str = ""


class TaskPushConfig(_Message, frozen=True, kw_only=True):
    """Where push notifications about a task go."""

    url: str
    id: str = ""
    task_id: str = ""
    token: str = ""
    authentication: Authentication | None = None


class PushConfigParams(_Message, frozen=True, kw_only=True):
    """The parameters of the methods that read or delete configurations of a task."""

    task_id: str
    id: str = ""


class PushConfigsResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All configurations of a task: there are few, so there is one page."""

    configs: tuple[TaskPushConfig, ...]
    next_page_token: str = ""


class Configuration(_Message, frozen=True, kw_only=True):
    """How the reply to a message is sent."""

    return_immediately: bool = False
    task_push_notification_config: TaskPushConfig | None = None


class SendParams(_Message, frozen=True, kw_only=True):
    """The parameters of `SendMessage` and `SendStreamingMessage`."""

    message: Message
    configuration: Configuration = Configuration()


class TaskParams(_Message, frozen=True, kw_only=True):
    """The parameters of the methods that name a task."""

    id: str


class ListTasksParams(_Message, frozen=True, kw_only=True):
    """The parameters of `ListTasks`."""

    context_id: str = ""
    status: Annotated[str, Meta(pattern="^(TASK_STATE_[A-Z_]{1,40})?$")] = ""
    page_size: Annotated[int, Meta(ge=1, le=100)] = 50
    page_token: Annotated[str, Meta(max_length=500)] = ""
    history_length: Annotated[int, Meta(ge=0)] = 0
    """Tasks have no history, so it changes nothing."""
    status_timestamp_after: str = ""
    include_artifacts: bool = False


class TaskStatus(_Message, frozen=True, kw_only=True):
    """Where a task is."""

    state: TaskState
    message: Message | None = None
    timestamp: str = ""


class Artifact(_Message, frozen=True, kw_only=True):
    """A result of a task."""

    artifact_id: str
    name: str
    parts: tuple[Part, ...]


class Task(_Message, frozen=True, kw_only=True):
    """A task: a run."""

    id: str
    context_id: str
    status: TaskStatus
    artifacts: tuple[Artifact, ...] = ()


class ListTasksResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of tasks."""

    tasks: tuple[Task, ...]
    next_page_token: str
    """Empty on the last page."""
    page_size: int
    total_size: int
    """The number of tasks on all pages."""


class Interface(_Message, frozen=True, kw_only=True):
    """Where an agent is reached."""

    url: str
    protocol_binding: str
    protocol_version: str


class Capabilities(_Message, frozen=True, kw_only=True):
    """What an agent can do."""

    streaming: bool
    push_notifications: bool
    extended_agent_card: bool


class AgentSkill(_Message, frozen=True, kw_only=True):
    """What an agent may be asked for."""

    id: str
    name: str
    description: str
    tags: tuple[str, ...]
    input_modes: tuple[str, ...] = ()
    output_modes: tuple[str, ...] = ()


class AgentCard(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The description of the server as an agent."""

    name: str
    description: str
    version: str
    supported_interfaces: tuple[Interface, ...]
    capabilities: Capabilities
    default_input_modes: tuple[str, ...]
    default_output_modes: tuple[str, ...]
    skills: tuple[AgentSkill, ...]
    security_schemes: dict[str, Any]
    security_requirements: tuple[Any, ...]
