"""Push notifications of A2A, with the official client: configurations, messages, access."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from a2a.helpers import get_message_text
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError
from google.protobuf.json_format import ParseDict

from orchestra.core.protocols import CallRequest
from orchestra.server import ServerSettings
from orchestra.server.agent_protocols.a2a_push import MAX_CONFIGS
from orchestra.server.push_records import PushConfig, PushConfigs, PushWatch, push_configs_of, push_watches_of
from orchestra.server.retention import sweep
from orchestra.server.webhooks import BACKOFF, Delivery, deliver_due, deliveries_of, open_session
from tests.server.agent_protocols.a2a_clients import a2a_client, data_of, message, send, state
from tests.server.receivers import Receiver, receiving
from tests.server.servers import INPUTS, LOCKED, REPLY, TestServer, project, serving, until, until_async

PRIVATE = ServerSettings(auth=False, hosts=("*",), private_webhooks=True)
URL = "https://hooks.example/a2a"

BOTH = """\
schema: orchestra/v1
name: both
description: Reads, and asks a person meanwhile.
input: {question: str, documents: "list[Document]"}
nodes:
  read:
    agent: reader
    against: ${input.documents}
    with: {question: "${input.question}", documents: "${input.documents}"}
  ask:
    ask: "More?"
output: {answer: "${read.answer}", more: "${ask}"}
"""


def task_of(body: bytes) -> pb.Task:
    """The task of a message, as the official types read it."""
    task: pb.Task = ParseDict(json.loads(body), pb.StreamResponse()).task
    return task


def received(receiver: Receiver, count: int) -> Callable[[], bool]:
    """Whether so many messages have arrived."""
    return lambda: len(receiver.messages) >= count


async def sent(server: TestServer) -> list[Delivery]:
    """The records of all messages."""
    return [one.value for one in await deliveries_of(server.services).all()]


async def test_card_states_push_notifications(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        card = ParseDict((await server.client.get("/.well-known/agent-card.json")).json(), pb.AgentCard())
    assert card.capabilities.push_notifications


async def test_configuration_is_set_read_listed_and_deleted(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        task = (await send(client, message({"data": {"draft": "Hello"}}, skill="approve"))).id
        wanted = pb.TaskPushNotificationConfig(
            task_id=task, id="mine", url=URL, token="t0k", authentication={"scheme": "Bearer", "credentials": "abc"}
        )
        created = await client.create_task_push_notification_config(wanted)
        other = await client.create_task_push_notification_config(pb.TaskPushNotificationConfig(task_id=task, url=URL))
        shown = await client.get_task_push_notification_config(
            pb.GetTaskPushNotificationConfigRequest(task_id=task, id="mine")
        )
        replaced = pb.TaskPushNotificationConfig(task_id=task, id="mine", url=f"{URL}/2")
        await client.create_task_push_notification_config(replaced)
        listing = pb.ListTaskPushNotificationConfigsRequest(task_id=task)
        before = (await client.list_task_push_notification_configs(listing)).configs
        for id in ("mine", "mine", "unknown"):
            await client.delete_task_push_notification_config(
                pb.DeleteTaskPushNotificationConfigRequest(task_id=task, id=id)
            )
        after = (await client.list_task_push_notification_configs(listing)).configs
        with pytest.raises(TaskNotFoundError):
            await client.get_task_push_notification_config(
                pb.GetTaskPushNotificationConfigRequest(task_id=task, id="mine")
            )
    assert created == wanted
    assert other.id
    assert (shown.id, shown.task_id, shown.url, shown.authentication.scheme) == ("mine", task, URL, "Bearer")
    assert (shown.token, shown.authentication.credentials) == ("", "")
    assert [(one.id, one.url) for one in before] == [(other.id, URL), ("mine", f"{URL}/2")]
    assert [one.id for one in after] == [other.id]


async def test_client_is_notified_of_the_end_with_its_token(tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        serving(tmp_path, settings=PRIVATE) as server,
        a2a_client(
            server,
            push_notification_config=pb.TaskPushNotificationConfig(
                url=receiver.url, token="t0k", authentication={"scheme": "Bearer", "credentials": "abc"}
            ),
        ) as client,
    ):
        task = await send(client, message({"data": INPUTS}, skill="answer"))
        await until(received(receiver, 1))

        async def is_reported() -> bool:
            found = await push_configs_of(server.services).get(task.id)
            return found is not None and all(one.is_reported for one in found.value.configs)

        await until_async(is_reported)
        records = await sent(server)
    ((headers, body),) = receiver.messages
    assert (state(task_of(body)), task_of(body).id, data_of(task_of(body))["output"]) == ("completed", task.id, REPLY)
    assert headers["content-type"] == "application/a2a+json"
    assert (headers["x-a2a-notification-token"], headers["authorization"]) == ("t0k", "Bearer abc")
    assert headers["webhook-id"] == records[0].id
    assert "webhook-signature" not in headers


async def test_client_is_notified_of_a_question_and_then_of_the_end(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path, settings=PRIVATE) as server:
        config = pb.TaskPushNotificationConfig(url=receiver.url)
        async with a2a_client(server, push_notification_config=config) as client:
            task = await send(client, message({"data": {"draft": "Hello"}}, skill="approve"))
            await until(received(receiver, 1))
        async with a2a_client(server) as client:
            await send(client, message({"text": "yes"}, taskId=task.id))
            await until(received(receiver, 2))
    assert [state(task_of(body)) for _, body in receiver.messages] == ["input_required", "completed"]


async def test_client_is_notified_of_a_question_while_other_nodes_work(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def waits(call: CallRequest) -> Any:
        await go.wait()
        return REPLY

    project(tmp_path)
    (tmp_path / "workflows" / "both.yaml").write_text(BOTH)
    async with receiving() as receiver, serving(tmp_path, waits, settings=PRIVATE) as server:
        config = pb.TaskPushNotificationConfig(url=receiver.url)
        async with a2a_client(server, push_notification_config=config, polling=True) as client:
            await send(client, message({"data": INPUTS}, skill="both"))
            await until(received(receiver, 1))
            go.set()
    asked = task_of(receiver.messages[0][1])
    assert (state(asked), get_message_text(asked.status.message).splitlines()[1]) == ("input_required", "ask: More?")


async def test_later_configuration_tells_of_later_changes_only(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path, settings=PRIVATE) as server, a2a_client(server) as client:
        task = await send(client, message({"data": {"draft": "Hello"}}, skill="approve"))
        config = pb.TaskPushNotificationConfig(task_id=task.id, url=receiver.url)
        await client.create_task_push_notification_config(config)
        await send(client, message({"text": "yes"}, taskId=task.id))
        await until(received(receiver, 1))
    assert [state(task_of(body)) for _, body in receiver.messages] == ["completed"]


async def test_deleted_configuration_gets_nothing(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path, settings=PRIVATE) as server, a2a_client(server) as client:
        task = await send(client, message({"data": {"draft": "Hello"}}, skill="approve"))
        for id in ("kept", "deleted"):
            config = pb.TaskPushNotificationConfig(task_id=task.id, id=id, url=f"{receiver.url}/{id}", token=id)
            await client.create_task_push_notification_config(config)
        await client.delete_task_push_notification_config(
            pb.DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="deleted")
        )
        await send(client, message({"text": "yes"}, taskId=task.id))
        await until(received(receiver, 1))
        async with open_session(allow_private=True) as session:
            await deliver_due(server.services, session, asyncio.Semaphore(1), time.time() + 100_000)
        left = await sent(server)
    assert [headers["x-a2a-notification-token"] for headers, _ in receiver.messages] == ["kept"]
    assert [one.webhook for one in left] == ["kept"]


async def test_refused_message_is_repeated_and_dropped_at_last(tmp_path: Path) -> None:
    async with receiving(500) as receiver, serving(tmp_path, settings=PRIVATE) as server:
        config = pb.TaskPushNotificationConfig(url=receiver.url)
        async with a2a_client(server, push_notification_config=config) as client:
            await send(client, message({"data": INPUTS}, skill="answer"))

        async def was_tried() -> bool:
            return [(one.attempts, one.last_error) for one in await sent(server)] == [(1, "status 500")]

        await until_async(was_tried)
        now = time.time()
        async with open_session(allow_private=True) as session:
            for _ in BACKOFF:
                now += 100_000
                await deliver_due(server.services, session, asyncio.Semaphore(1), now)
        (dead,) = await sent(server)
    assert (dead.status, dead.attempts, dead.body) == ("dead", 1 + len(BACKOFF), "")
    assert len({headers["webhook-id"] for headers, _ in receiver.messages}) == 1
    assert len(receiver.messages) == 1 + len(BACKOFF)


async def test_messages_of_a_process_that_died_are_recorded_later(tmp_path: Path) -> None:
    async with receiving() as receiver:
        async with serving(tmp_path, settings=PRIVATE) as server:
            await server.services.close()  # Nothing in the background records or sends any more.
            run = await server.orchestra.options(tags={"orchestra.tenant": "local"}).run(
                server.orchestra.find("answer"), **INPUTS
            )
            configs = PushConfigs(configs=(PushConfig(id="mine", url=receiver.url),))
            await push_configs_of(server.services).add(run.run, "local", configs)
            await push_watches_of(server.services).add(run.run, "local", PushWatch(task=run.run))
        async with serving(tmp_path, settings=PRIVATE):
            await until(received(receiver, 1))
    assert task_of(receiver.messages[0][1]).id == run.run


@pytest.mark.parametrize("expires", [False, True])
async def test_configuration_is_deleted_with_its_run(tmp_path: Path, expires: bool) -> None:
    async with serving(tmp_path, settings=replace(PRIVATE, retention=10)) as server:
        async with a2a_client(server, push_notification_config=pb.TaskPushNotificationConfig(url=URL)) as client:
            task = await send(client, message({"data": INPUTS}, skill="answer"))
        stored = await push_configs_of(server.services).get(task.id)
        if expires:
            await sweep(server.services, time.time() + 100)
        else:
            await server.client.delete(f"/api/runs/{task.id}")
        gone = await push_configs_of(server.services).get(task.id)
    assert (stored is None, gone) == (False, None)


# Access and bad input


async def test_configurations_of_another_tenant_are_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        alpha, beta = await server.key("alpha"), await server.key("beta")
        async with a2a_client(server, alpha) as client:
            task = (await send(client, message({"data": {"draft": "secret"}}, skill="approve"))).id
            config = pb.TaskPushNotificationConfig(task_id=task, id="mine", url=URL)
            await client.create_task_push_notification_config(config)
        async with a2a_client(server, beta) as client:
            for request in (
                client.create_task_push_notification_config(config),
                client.get_task_push_notification_config(
                    pb.GetTaskPushNotificationConfigRequest(task_id=task, id="mine")
                ),
                client.list_task_push_notification_configs(pb.ListTaskPushNotificationConfigsRequest(task_id=task)),
                client.delete_task_push_notification_config(
                    pb.DeleteTaskPushNotificationConfigRequest(task_id=task, id="mine")
                ),
            ):
                with pytest.raises(TaskNotFoundError):
                    await request
        stored = await push_configs_of(server.services).get(task)
    assert stored is not None
    assert [one.id for one in stored.value.configs] == ["mine"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": "http://hooks.example/"}, "S012"),
        ({"url": "https://127.0.0.1/"}, "S012"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "S012"),
        ({"url": ""}, "S002"),
        ({"url": URL, "token": "a\r\nX-Other: 1"}, "S002"),
        ({"url": URL, "id": "../x"}, "S002"),
        ({"url": URL, "authentication": {"scheme": "Bearer x"}}, "S002"),
        ({"url": URL, "authentication": {"scheme": "Bearer", "credentials": "a\nb"}}, "S002"),
    ],
)
async def test_configuration_that_cannot_be_used_is_refused(tmp_path: Path, fields: dict[str, Any], code: str) -> None:
    async with serving(tmp_path) as server:
        async with a2a_client(server) as client:
            task = (await send(client, message({"data": {"draft": "Hello"}}, skill="approve"))).id
            with pytest.raises(InvalidParamsError, match=code):
                await client.create_task_push_notification_config(pb.TaskPushNotificationConfig(task_id=task, **fields))
        async with a2a_client(server, push_notification_config=pb.TaskPushNotificationConfig(**fields)) as client:
            with pytest.raises(InvalidParamsError, match=code):
                await send(client, message({"data": INPUTS}, skill="answer"))
        runs = await server.orchestra.runs()
    assert [one.run for one in runs] == [task]


async def test_task_has_a_limited_number_of_configurations(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        task = (await send(client, message({"data": {"draft": "Hello"}}, skill="approve"))).id
        for number in range(MAX_CONFIGS):
            config = pb.TaskPushNotificationConfig(task_id=task, id=str(number), url=URL)
            await client.create_task_push_notification_config(config)
        with pytest.raises(InvalidParamsError, match="at most"):
            await client.create_task_push_notification_config(
                pb.TaskPushNotificationConfig(task_id=task, id="more", url=URL)
            )
