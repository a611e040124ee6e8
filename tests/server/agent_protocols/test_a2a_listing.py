"""`ListTasks` of A2A, with the official client: filters, pages, other tenants."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from a2a.client import Client
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import A2AError, InvalidParamsError

from tests.server.agent_protocols.a2a_clients import a2a_client, data_of, message, send, state
from tests.server.servers import INPUTS, LOCKED, REPLY, serving

WAITING, COMPLETED = pb.TaskState.TASK_STATE_INPUT_REQUIRED, pb.TaskState.TASK_STATE_COMPLETED


async def ask(client: Client, context: str = "") -> str:
    """The id of a task that waits for a person."""
    fields = {"contextId": context} if context else {}
    return (await send(client, message({"data": {"draft": "Hello"}}, skill="approve", **fields))).id


async def complete(client: Client, context: str = "") -> str:
    """The id of a task that is completed."""
    fields = {"contextId": context} if context else {}
    return (await send(client, message({"data": INPUTS}, skill="answer", **fields))).id


async def listed(client: Client, **fields: Any) -> list[str]:
    """The ids of the tasks that a request lists."""
    return [task.id for task in (await client.list_tasks(pb.ListTasksRequest(**fields))).tasks]


async def test_latest_changed_task_is_first(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        first, second, third = await ask(client), await complete(client), await ask(client)
        before = await listed(client)
        await send(client, message({"text": "yes"}, taskId=first))
        reply = await client.list_tasks(pb.ListTasksRequest())
        task = await client.get_task(pb.GetTaskRequest(id=third))
    assert before == [third, second, first]
    assert [one.id for one in reply.tasks] == [first, third, second]
    assert [state(one) for one in reply.tasks] == ["completed", "input_required", "completed"]
    assert (reply.total_size, reply.page_size, reply.next_page_token) == (3, 50, "")
    assert reply.tasks[1].status.timestamp == task.status.timestamp


async def test_filters_by_state_context_and_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        waiting, done, other = await ask(client, "talk"), await complete(client, "talk"), await complete(client)
        alone = (await server.run())["id"]
        last = (await client.get_task(pb.GetTaskRequest(id=alone))).status.timestamp
        later = pb.ListTasksRequest()
        later.status_timestamp_after.FromDatetime(last.ToDatetime() + timedelta(seconds=1))
        since = pb.ListTasksRequest(status_timestamp_after=last)
        assert await listed(client, status=WAITING) == [waiting]
        assert await listed(client, status=COMPLETED) == [alone, other, done]
        assert await listed(client, status=pb.TaskState.TASK_STATE_REJECTED) == []
        assert await listed(client, context_id="talk") == [done, waiting]
        assert await listed(client, context_id="talk", status=WAITING) == [waiting]
        assert await listed(client, context_id=alone) == [alone]
        assert await listed(client, context_id=alone, status=WAITING) == []
        assert await listed(client, context_id=waiting) == []
        assert alone in [task.id for task in (await client.list_tasks(since)).tasks]
        assert list((await client.list_tasks(later)).tasks) == []


async def test_pages_have_each_task_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        tasks = [await ask(client) for _ in range(5)]
        found, token = list[str](), ""
        sizes = list[int]()
        while True:
            page = await client.list_tasks(pb.ListTasksRequest(page_size=2, page_token=token))
            found += [task.id for task in page.tasks]
            sizes.append(len(page.tasks))
            assert page.total_size == 5
            if not (token := page.next_page_token):
                break
    assert (found, sizes) == (tasks[::-1], [2, 2, 1])


async def test_artifacts_are_sent_only_if_wanted(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        await complete(client)
        (without,) = (await client.list_tasks(pb.ListTasksRequest())).tasks
        (task,) = (await client.list_tasks(pb.ListTasksRequest(include_artifacts=True))).tasks
    assert not without.artifacts
    assert data_of(task)["output"] == REPLY


async def test_tasks_of_another_tenant_are_not_listed(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        alpha, beta = await server.key("alpha"), await server.key("beta")
        async with a2a_client(server, alpha) as client:
            first = await ask(client, "talk")
            second = await ask(client, "talk")
            token = (await client.list_tasks(pb.ListTasksRequest(page_size=1))).next_page_token
            own = await client.list_tasks(pb.ListTasksRequest(context_id="talk"))
        async with a2a_client(server, beta) as client:
            queries: list[dict[str, Any]] = [{}, {"context_id": "talk"}, {"context_id": first}, {"page_token": token}]
            for fields in queries:
                reply = await client.list_tasks(pb.ListTasksRequest(**fields))
                assert (list(reply.tasks), reply.total_size) == ([], 0)
    assert [task.id for task in own.tasks] == [second, first]


async def test_list_needs_the_scope_read(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server, a2a_client(server, await server.key("a", "run")) as client:
        with pytest.raises(A2AError, match="S006"):
            await client.list_tasks(pb.ListTasksRequest())


@pytest.mark.parametrize(
    "fields", [{"page_size": 101}, {"page_size": -1}, {"page_token": "x"}, {"page_token": "bnVsbA=="}]
)
async def test_list_that_cannot_be_read_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        with pytest.raises(InvalidParamsError):
            await client.list_tasks(pb.ListTasksRequest(**fields))
