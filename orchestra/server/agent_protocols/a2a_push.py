"""Push notifications of A2A: the server sends a task to an address of the client when the task waits or ends.

The messages are sent as those of webhooks: to public addresses only, and again until the receiver accepts them.
"""

from __future__ import annotations

import re
import time
import uuid
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event, QuestionAsked, RunFinished
from orchestra.server.agent_protocols.a2a_errors import INVALID_PARAMS, TASK_NOT_FOUND, RpcError, convert_params
from orchestra.server.agent_protocols.a2a_tasks import read_task, require_task
from orchestra.server.agent_protocols.a2a_types import (
    Authentication,
    PushConfigParams,
    PushConfigsResult,
    RpcRequest,
    TaskPushConfig,
)
from orchestra.server.endpoints import Call
from orchestra.server.principals import TENANT_TAG
from orchestra.server.push_records import (
    PushConfig,
    PushConfigs,
    PushWatch,
    find_push_config,
    push_configs_of,
    push_watches_of,
)
from orchestra.server.services import Services
from orchestra.server.streams import run_events
from orchestra.server.webhooks import PUSH, Delivery, Topic, check_url, deliveries_of

MAX_CONFIGS: Final = 10
"""Configurations of one task."""
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]{0,1998}[!-~])?")
"""Printable ASCII, without spaces at the ends."""
_SCHEME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


# Methods


async def create_config(call: Call[Any, Any], request: RpcRequest) -> TaskPushConfig:
    """Adds a configuration to a task, or replaces the one with its id. Messages begin with the next event.

    Raises:
        RpcError: For an unknown task, or a configuration that cannot be used.
        RequestError: S012 for an address to which no message may go.
    """
    push_config = convert_params(request.params, TaskPushConfig)
    await require_task(call, push_config.task_id)
    config = read_config(call, push_config)
    answer = await call.services.answer(push_config.task_id)
    await add_config(call, push_config.task_id, msgspec.structs.replace(config, after=answer.last_seq))
    return msgspec.structs.replace(push_config, id=config.id)


async def get_config(call: Call[Any, Any], request: RpcRequest) -> TaskPushConfig:
    """Returns a configuration of a task without its secrets. Raises `RpcError` for an unknown one."""
    params = convert_params(request.params, PushConfigParams)
    await require_task(call, params.task_id)
    config = await find_push_config(call.services, params.task_id, params.id)
    if config is None:
        raise RpcError(TASK_NOT_FOUND, "S009", f"the task has no configuration {params.id[:100]!r}",
                       hint="ListTaskPushNotificationConfigs", pointer="/id")  # fmt: skip
    return _shown(params.task_id, config)


async def list_configs(call: Call[Any, Any], request: RpcRequest) -> PushConfigsResult:
    """Returns all configurations of a task without their secrets. Raises `RpcError` for an unknown task."""
    params = convert_params(request.params, PushConfigParams)
    await require_task(call, params.task_id)
    stored_push_configs = await push_configs_of(call.services).get(params.task_id)
    configs = () if stored_push_configs is None else stored_push_configs.value.configs
    return PushConfigsResult(configs=tuple(_shown(params.task_id, config) for config in configs))


async def delete_config(call: Call[Any, Any], request: RpcRequest) -> None:
    """Deletes a configuration, if it is there: its messages are not sent. Raises `RpcError` for an unknown task."""
    params = convert_params(request.params, PushConfigParams)
    await require_task(call, params.task_id)
    call.services.stop_work(_work_name(params.task_id, params.id))
    await push_configs_of(call.services).change(params.task_id, lambda configs: configs.without(params.id))


def _shown(task: str, config: PushConfig) -> TaskPushConfig:
    """Returns a configuration as others of its tenant may see it: the token and the credentials are left out."""
    authentication = Authentication(scheme=config.scheme) if config.scheme else None
    return TaskPushConfig(id=config.id, task_id=task, url=config.url, authentication=authentication)


# Configurations


def read_config(call: Call[Any, Any], wanted: TaskPushConfig) -> PushConfig:
    """Returns the configuration that a client wants, with an id.

    Raises:
        RpcError: For an id, a token or credentials that cannot be used.
        RequestError: S012 for an address to which no message may go.
    """
    check_url(wanted.url, allow_private=call.services.settings.private_webhooks)
    authentication = wanted.authentication or Authentication()
    for name, value, pattern in (
        ("id", wanted.id, _ID),
        ("token", wanted.token, _HEADER_VALUE),
        ("authentication/scheme", authentication.scheme, _SCHEME),
        ("authentication/credentials", authentication.credentials, _HEADER_VALUE),
    ):
        if value and pattern.fullmatch(value) is None:
            raise RpcError(INVALID_PARAMS, "S002", f"{name} is not a plain text", hint="printable ASCII",
                           pointer=f"/{name}")  # fmt: skip
    return PushConfig(
        id=wanted.id or str(uuid.uuid4()),
        url=wanted.url,
        token=wanted.token,
        scheme=authentication.scheme,
        credentials=authentication.credentials,
    )


async def add_config(call: Call[Any, Any], task: str, config: PushConfig) -> None:
    """Stores a configuration of a task of the caller, and begins to follow the task. Raises `RpcError` if it has too
    many.
    """
    services, push_configs = call.services, push_configs_of(call.services)

    def add(configs: PushConfigs) -> PushConfigs:
        other_configs = configs.without(config.id).configs
        if len(other_configs) >= MAX_CONFIGS:
            raise RpcError(INVALID_PARAMS, "S002", f"a task has at most {MAX_CONFIGS} configurations",
                           hint="DeleteTaskPushNotificationConfig")  # fmt: skip
        return PushConfigs(configs=(*other_configs, config))

    start_event = await require_task(call, task)
    tenant = start_event.tags.get(TENANT_TAG, call.principal.tenant)
    await push_configs.add(task, tenant, PushConfigs())
    await push_configs.change(task, add)
    await push_watches_of(services).add(task, tenant, PushWatch(task=task))
    _follow(services, tenant, task, config)


# Messages


async def recover_push(services: Services) -> None:
    """Records the messages that processes that have died did not record."""
    for watch in await push_watches_of(services).all():
        stored_push_configs = await push_configs_of(services).get(watch.value.task)
        unreported = (
            []
            if stored_push_configs is None
            else [push_config for push_config in stored_push_configs.value.configs if not push_config.is_reported]
        )
        for config in unreported:
            _follow(services, watch.record.tenant, watch.value.task, config)
        if not unreported:
            await push_watches_of(services).delete(watch.value.task)


def _work_name(task: str, id: str) -> str:
    return f"push {task} {id}"


def _follow(services: Services, tenant: str, task: str, config: PushConfig) -> None:
    services.spawn_once(_work_name(task, config.id), partial(_report, services, tenant, task, config))


async def _report(services: Services, tenant: str, task: str, config: PushConfig) -> None:
    """Records the messages of a configuration until its task has ended."""
    try:
        async with aclosing(run_events(services, task, config.after)) as events:
            async for event in events:
                if isinstance(event, QuestionAsked | RunFinished):
                    await _record_message(services, tenant, task, config.id, event)

        def end(configs: PushConfigs) -> PushConfigs:
            return PushConfigs(
                configs=tuple(
                    msgspec.structs.replace(push_config, is_reported=True)
                    if push_config.id == config.id
                    else push_config
                    for push_config in configs.configs
                )
            )

        await push_configs_of(services).change(task, end)
    except OrchestraError as error:
        services.log("push notifications of a task not recorded", run=task, code=error.code)


async def _record_message(services: Services, tenant: str, task: str, config: str, event: Event) -> None:
    """Records the message about an event once, whichever process does it. It is the task as `GetTask` returns
    it; but a task with an open question is one that waits, since the message is about the question.
    """
    topic: Topic = "run.waiting" if isinstance(event, QuestionAsked) else "run.finished"
    body = msgspec.json.encode({"task": await read_task(services, task, prefers_question=True)}).decode()
    name, now = f"{PUSH}.{task}.{config}.{event.seq}", time.time()
    delivery = Delivery(
        id=name, webhook=config, event=topic, run=task, status="pending", attempts=0, next_attempt=now,
        last_error="", created=now, body=body, target=PUSH,
    )  # fmt: skip
    await deliveries_of(services).add(name, tenant, delivery)
