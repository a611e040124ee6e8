"""The default data type of a machine, and the number of threads of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.fleet import cpu
from orchestra.fleet.config import FleetConfig, LocalServer
from orchestra.fleet.cpu import Cpu, MatmulSpeeds
from orchestra.fleet.model_digests import ModelDigests
from orchestra.fleet.vllm_cpu.thread_policy import (
    MAX_WAIT_SHARE,
    MIN_PAUSE,
    ClockReading,
    ThreadPolicy,
    has_scheduler_statistics,
    read_clocks,
)
from orchestra.fleet.weights.weights import ModelStore

ZEN_3 = "fpu sse2 ssse3 fma cx16 avx f16c bmi1 avx2 bmi2 vaes"
CASCADE_LAKE = f"{ZEN_3} avx512f avx512dq avx512bw avx512vl avx512_vnni"
SAPPHIRE_RAPIDS = f"{CASCADE_LAKE} avx_vnni avx512_bf16 amx_bf16 amx_tile amx_int8"
ARM = "fp asimd bf16"


def cpuinfo(folder: Path, flags: str, key: str = "flags") -> Path:
    file = folder / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: A CPU\n{key}\t\t: {flags}\n\nprocessor\t: 1\n{key}\t\t: none\n")
    return file


def local(**more: Any) -> LocalServer:
    server = {
        "model": "m",
        "device": "cpu",
        "max_model_len": 10,
        "weights": {"licence": "none", "sources": [{"folder": "/nowhere"}]},
        **more,
    }
    config = {"schema": "orchestra/fleet/v1", "name": "one", "servers": {"one": server}, "models": {"base": "one"}}
    return FleetConfig.model_validate_json(msgspec.json.encode(config)).local_servers["one"]


@pytest.mark.parametrize(
    ("flags", "key", "limit", "dtype"),
    [
        (ZEN_3, "flags", "", "float32"),
        (CASCADE_LAKE, "flags", "", "float32"),
        (SAPPHIRE_RAPIDS, "flags", "", "bfloat16"),
        (SAPPHIRE_RAPIDS, "flags", "AVX2", "float32"),
        (SAPPHIRE_RAPIDS, "flags", "avx512_core_bf16", "bfloat16"),
        (SAPPHIRE_RAPIDS, "flags", "DEFAULT", "bfloat16"),
        (ARM, "Features", "", "bfloat16"),
        ("", "flags", "", "float32"),
    ],
)
def test_dtype_follows_cpu_instructions(flags: str, key: str, limit: str, dtype: str, tmp_path: Path) -> None:
    found = cpu.read_cpu(cpuinfo(tmp_path, flags, key), {cpu.ISA_VARIABLE: limit})
    assert (found.model, cpu.choose_dtype(found)) == ("A CPU", dtype)


def test_dtype_without_cpuinfo_is_float32(tmp_path: Path) -> None:
    assert cpu.choose_dtype(cpu.read_cpu(tmp_path / "absent", {})) == "float32"


@given(st.booleans(), st.floats(0.1, 1e4), st.floats(0.1, 1e4))
def test_dtype_clear_timings_decide(native: bool, bfloat16: float, float32: float) -> None:
    machine = Cpu("", frozenset({"amx_bf16"} if native else ()), 2)
    chosen = cpu.choose_dtype(machine, MatmulSpeeds(bfloat16, float32))
    if bfloat16 >= cpu.OVERRIDE_RATIO * float32:
        assert chosen == "bfloat16"
    elif float32 >= cpu.OVERRIDE_RATIO * bfloat16:
        assert chosen == "float32"
    else:
        assert chosen == cpu.choose_dtype(machine)


@pytest.mark.parametrize(
    ("flags", "given", "dtype", "quantization"),
    [
        (ZEN_3, {"quantization": "auto"}, "float32", "int8"),
        (ZEN_3, {}, "float32", None),
        (ZEN_3, {"quantization": "auto", "dtype": "bfloat16"}, "bfloat16", None),
        (SAPPHIRE_RAPIDS, {"quantization": "auto"}, "bfloat16", None),
        (SAPPHIRE_RAPIDS, {"quantization": "int8", "dtype": "float32"}, "float32", "int8"),
        (SAPPHIRE_RAPIDS, {"quantization": "int8"}, "float32", "int8"),
        ("fp asimd", {"quantization": "auto"}, "float32", None),
        (ZEN_3, {"quantization": "auto", "device": "gpu"}, "auto", None),
    ],
)
def test_auto_quantization_needs_avx2_without_bfloat16(
    flags: str,
    given: dict[str, Any],
    dtype: str,
    quantization: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "CPUINFO", cpuinfo(tmp_path, flags))
    monkeypatch.delenv(cpu.ISA_VARIABLE, raising=False)
    found = cpu.resolve_auto(local(**given), tmp_path)
    assert (found.dtype, found.quantization) == (dtype, quantization)


def test_speeds_are_cached_and_damaged_file_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def run(*_: Any, **__: Any) -> Any:
        asked.append(1)
        return type("Done", (), {"stdout": b'{"bfloat16": 10.0, "float32": 40.0}'})

    monkeypatch.setattr("orchestra.fleet.cpu.subprocess.run", run)
    assert cpu.ensure_speeds(tmp_path) == cpu.ensure_speeds(tmp_path) == MatmulSpeeds(10.0, 40.0)
    assert len(asked) == 1
    (file,) = (tmp_path / "cpu").iterdir()
    file.write_bytes(b"{")
    assert cpu.cached_speeds(cpu.read_cpu(), tmp_path) is None
    assert cpu.ensure_speeds(tmp_path) == MatmulSpeeds(10.0, 40.0)


def test_server_digest_includes_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelDigests, "_weights_digest", lambda *_: "the same files")
    monkeypatch.delenv(cpu.ISA_VARIABLE, raising=False)
    found = set()
    for flags in (ZEN_3, SAPPHIRE_RAPIDS):
        monkeypatch.setattr(cpu, "CPUINFO", cpuinfo(tmp_path, flags))
        found.add(ModelDigests(ModelStore.from_environment()).base_digest("one", local()))
    assert len(found) == 2


class Machine:
    """Clocks of a machine with two cores, of which other programs use `busy`."""

    def __init__(self) -> None:
        self.now = self.waited = self.idle = 0.0

    def read(self) -> ClockReading:
        return ClockReading(self.now, self.waited, self.idle)

    def step(self, policy: ThreadPolicy, busy: int, seconds: float = 0.05) -> int:
        start, threads = self.read(), policy.threads
        self.now += seconds
        self.waited += seconds * max(0, threads + busy - 2) / 2
        self.idle += seconds * max(0, 2 - threads - busy)
        return policy.update(start, self.read())


def test_thread_policy_contended_core_uses_one_thread() -> None:
    machine, policy = Machine(), ThreadPolicy(2)
    assert [machine.step(policy, 0) for _ in range(50)] == [2] * 50
    assert machine.step(policy, 1) == 1, "after a single step"
    assert {machine.step(policy, 1) for _ in range(200)} == {1}, "as long as it takes"
    back = [machine.step(policy, 0) for _ in range(200)]
    assert back[-1] == 2
    assert back.index(2) * 0.05 < 2 * MIN_PAUSE + 0.5


def test_thread_policy_repeated_drops_lengthen_pause() -> None:
    machine, policy = Machine(), ThreadPolicy(2)
    lengths = []
    for _ in range(4):
        assert machine.step(policy, 2) == 1
        began = machine.now
        while machine.step(policy, 0) == 1:
            pass
        lengths.append(machine.now - began)
    assert lengths == sorted(lengths)
    assert lengths[-1] > 3 * lengths[0]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 1.0)), max_size=200), st.integers(2, 8))
def test_thread_policy_waiting_step_drops_to_one(steps: list[tuple[float, float]], most: int) -> None:
    machine, policy = Machine(), ThreadPolicy(most)
    for share, seconds in steps:
        before, start = policy.threads, machine.read()
        machine.now += seconds
        machine.waited += share * seconds
        machine.idle += seconds * most
        threads = policy.update(start, machine.read())
        assert threads in (1, most)
        if before == most and share > MAX_WAIT_SHARE * 1.001:
            assert threads == 1
        if before == most and share < MAX_WAIT_SHARE * 0.999:
            assert threads == most


def test_read_clocks_never_go_back() -> None:
    first, second = read_clocks(), read_clocks()
    assert second.now > first.now
    assert second.waited >= first.waited
    assert second.idle >= first.idle


def test_scheduler_statistics_missing_is_detected(tmp_path: Path) -> None:
    assert not has_scheduler_statistics(tmp_path)
    (tmp_path / "schedstat").write_text("1 2 3")
    assert has_scheduler_statistics(tmp_path)
