"""Fleet files: valid configurations, and errors with their locations."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.errors import FleetError, InputError, InputErrors
from orchestra.fleet.config import Endpoint, HubFileSource, LocalServer, PartsSource, parse_config, read_config
from orchestra.fleet.secrets import read_secret

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LOCAL = """
schema: orchestra/fleet/v1
name: small
servers:
  one:
    model: m
    device: cpu
    max_model_len: 1024
    weights: {licence: MIT, sources: [{folder: models/m}]}
models: {base: one}
"""
REMOTE = """
schema: orchestra/fleet/v1
name: far
servers:
  far: {endpoint: "https://example.com/v1", model: m}
models: {base: far}
"""


def parsed(text: str) -> Endpoint:
    """Returns the endpoint of a fleet with one endpoint."""
    (server,) = parse_config(text, "fleet.yaml").servers.values()
    assert isinstance(server, Endpoint)
    return server


def faults(text: str) -> list[InputError]:
    with pytest.raises(InputError) as caught:
        parse_config(text, "fleet.yaml")
    return list(caught.value.errors) if isinstance(caught.value, InputErrors) else [caught.value]


def test_config_two_servers_on_one_port_are_refused() -> None:
    one = LOCAL.replace("    model: m\n", "    model: m\n    port: 8101\n")
    other = one[one.index("  one:") : one.index("models: {base")].replace("one:", "two:")
    text = one.replace("models: {base", f"{other}models: {{base")
    (fault,) = faults(text)
    assert (fault.code, fault.message) == ("F100", "servers.two.port is 8101, and so is servers.one.port")
    assert fault.location is not None
    assert text.splitlines()[fault.location.line - 1].strip() == "port: 8101"
    assert fault.location.line > text.splitlines().index("  two:")
    assert "give two another port" in fault.hint
    assert parse_config(text.replace("8101", "8102", 1), "fleet.yaml").servers


@pytest.mark.parametrize("name", ["laptop", "endpoint", "gpu-24g", "gpu-80g", "qwen-0.5b", "qwen-1.5b", "workstation"])
def test_config_packaged_fleets_are_valid(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.yaml")
    assert config.servers_for("base")


def test_config_large_fleet_fits_one_gpu() -> None:
    servers = read_config(CONFIGS / "gpu-80g.yaml").local_servers.values()
    assert {server.model.split("/")[0] for server in servers} == {"Qwen", "google", "meta-llama", "microsoft"}
    assert all(server.max_loras for server in servers)
    assert sum(server.gpu_memory_utilization or 1 for server in servers) < 0.95


def test_config_laptop_fleet_pins_weights_and_has_slots() -> None:
    server = read_config(CONFIGS / "laptop.yaml").local_servers["smol"]
    assert server.weights.licence == "Apache-2.0"
    assert server.weights.sources[0].model_dump()["sha256"]
    assert server.max_loras > 1


def test_config_workstation_has_the_servers_of_the_single_fleets() -> None:
    workstation = read_config(CONFIGS / "workstation.yaml")
    assert (workstation.tiers, workstation.servers_for("base")) == (("medium", "large"), ("smol",))
    assert list(workstation.local_servers.values()) == [
        server
        for name in ("laptop", "qwen-0.5b", "qwen-1.5b")
        for server in read_config(CONFIGS / f"{name}.yaml").local_servers.values()
    ]


@pytest.mark.parametrize(("name", "parts"), [("qwen-0.5b", 6), ("qwen-1.5b", 22)])
def test_config_larger_bases_have_parts_and_a_hub_file_of_one_digest(name: str, parts: int) -> None:
    (server,) = read_config(CONFIGS / f"{name}.yaml").local_servers.values()
    joined, hub = server.weights.sources
    assert isinstance(joined, PartsSource)
    assert isinstance(hub, HubFileSource)
    assert len(joined.parts) == len({part.sha256 for part in joined.parts}) == parts
    assert (joined.identity, joined.bytes) == (hub.identity, hub.bytes)


PART = "{package: p%d==1, member: p/1.bin, sha256: %s, bytes: 5, download_bytes: 4}"
PARTS = LOCAL.replace(
    "{folder: models/m}",
    f"{{sha256: {'a' * 64}, bytes: 10, parts: [{PART % (1, 'b' * 64)},\n        {PART % (2, 'c' * 64)}]}}",
)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("bytes: 10,", "bytes: 11,", 9, "the parts have 10 bytes in total, and bytes is 11"),
        ("bytes: 10,", "", 9, "bytes is missing"),
        (f"sha256: {'c' * 64}, ", "", 10, "parts.1.sha256 is missing"),
        ("c" * 64, "c" * 63, 10, "parts.1.sha256: String should match pattern"),
        ("p2==1", "p2", 10, "parts.1.package: String should match pattern"),
        ("member: p/1.bin, sha256: c", "member: /etc/x, sha256: c", 10, "parts.1.member: String should match pattern"),
        (PART % (2, "c" * 64), "", 9, "parts: Tuple should have at least 2 items"),
    ],
)
def test_config_wrong_parts_have_location(old: str, new: str, line: int, message: str) -> None:
    assert parse_config(PARTS, "fleet.yaml")
    assert old in PARTS
    (fault,) = faults(PARTS.replace(old, new, 1))
    assert fault.code == "F100"
    assert message in fault.message
    assert fault.location is not None
    assert fault.location.line == line


def test_config_unknown_key_has_location_and_suggestion() -> None:
    (fault,) = faults(LOCAL.replace("max_model_len", "max_modellen: 4\n    max_model_len"))
    assert fault.code == "F100"
    assert fault.location is not None
    assert fault.location.line == 8
    assert "did you mean 'max_model_len'?" in fault.hint


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("limits: {in_flight: 2}", "at the top level of the file"),
        ("in_flight: 2", "under `limits:`, at the top level of the file"),
        ("api_key: env:KEY", "at an endpoint"),
        ("prompt: 1.0", "under `price:`, at an endpoint"),
        ("cached: 0.1", "under `price:`, at an endpoint"),
        ("parts: []", "under `weights:`, at a local server"),
        ("member: model.gguf", "under `weights:`, at a local server"),
    ],
)
def test_config_misplaced_key_has_hint(line: str, place: str) -> None:
    (fault,) = faults(LOCAL.replace("device: cpu", line))
    assert (fault.code, fault.hint) == ("F100", f"`{line.split(':')[0]}:` stands {place}")


def test_config_reports_all_errors() -> None:
    found = faults(LOCAL.replace("1024", "-3").replace("device: cpu", "device: tpu"))
    assert {fault.message.split(":")[0] for fault in found} == {"servers.one.max_model_len", "servers.one.device"}


def test_config_unknown_server_has_suggestion() -> None:
    (fault,) = faults(LOCAL.replace("base: one", "base: ona"))
    assert "did you mean 'one'?" in fault.message
    assert fault.message.startswith("models.base names the server 'ona'")
    assert fault.location is not None
    assert fault.location.text[fault.location.column - 1 :].startswith("ona")


def test_config_unknown_escalation_has_location() -> None:
    for line, named in (("escalate: bsae", "bsae"), ("escalate: [base, base]", "base]")):
        (fault,) = faults(LOCAL + line + "\n")
        assert fault.message.startswith("escalate names the model")
        assert fault.location is not None
        assert fault.location.text[fault.location.column - 1 :] == named


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("api_key: sk-1234", "env:NAME"),
        ("api_key: ''", "env:NAME"),
    ],
)
def test_config_literal_secret_is_refused_and_hidden(line: str, word: str) -> None:
    (fault,) = faults(REMOTE.replace("model: m}", f"model: m, {line}}}"))
    assert word in fault.hint
    assert "sk-1234" not in fault.message


@pytest.mark.parametrize(
    "url",
    ["https://user:pass@example.com/v1", "https://example.com/v1?key=1", "ftp://example.com", "file:///etc/passwd"],
)
def test_config_invalid_address_parts_are_refused(url: str) -> None:
    assert faults(REMOTE.replace("https://example.com/v1", url))


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("127.0.0.1:99999", "Port out of range"),
        ("127.0.0.1:0", "Port out of range"),
        ("127.0.0.1:http", "Port could not be cast"),
        ("x" * 70, "is not a host name"),
        ("a..b", "is not a host name"),
    ],
)
def test_config_impossible_addresses_are_refused(host: str, says: str) -> None:
    (fault,) = faults(REMOTE.replace("example.com", host))
    assert (fault.code, says in fault.message) == ("F100", True)


@pytest.mark.parametrize("host", ["[::1]:80", "münchen.example", "my_server:8000"])
def test_config_all_host_kinds_are_accepted(host: str) -> None:
    assert parse_config(REMOTE.replace("example.com", host), "fleet.yaml")


OTHER_HOSTS = st.one_of(
    st.sampled_from(
        ["example.com", "vllm.models.svc.cluster.local", "10.0.0.7", "192.168.1.2", "localhost.example", "[fd00::1]"]
    ),
    st.from_regex(r"[a-z][a-z0-9]{0,8}\.(svc|internal|example)", fullmatch=True),
)
OWN_HOSTS = st.sampled_from(["127.0.0.1", "localhost", "[::1]"])


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(OTHER_HOSTS, OWN_HOSTS),
    st.sampled_from(["http", "https"]),
    st.booleans(),
    st.sampled_from([None, False, True]),
)
def test_config_key_over_http_needs_insecure_http(host: str, scheme: str, key: bool, insecure: bool | None) -> None:
    said = (
        "m"
        + (", api_key: env:KEY" if key else "")
        + ("" if insecure is None else f", insecure_http: {str(insecure).lower()}")
    )
    text = REMOTE.replace("https://example.com", f"{scheme}://{host}").replace("model: m}", f"model: {said}}}")
    local = host in ("127.0.0.1", "localhost", "[::1]")
    if key and scheme == "http" and not local and not insecure:
        (fault,) = faults(text)
        assert (fault.code, "plain http" in fault.message, "insecure_http: true" in fault.message) == (
            "F100",
            True,
            True,
        )
    else:
        assert parsed(text).insecure_http is bool(insecure)


def test_config_endpoint_defaults_external_and_public() -> None:
    far = parse_config(REMOTE, "fleet.yaml").servers["far"]
    assert isinstance(far, Endpoint)
    assert (far.external, far.label) == (True, "public")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(("slots", "fits"), [(0, False), (1, True)])
def test_config_server_needs_slot_per_adapter(device: str, slots: int, fits: bool) -> None:
    text = LOCAL.replace(
        "device: cpu", f"device: {device}\n    max_loras: {slots}\n    adapters: {{reader: adapters/reader}}"
    )
    if fits:
        assert parse_config(text, "fleet.yaml")
    else:
        assert "max_loras" in faults(text)[0].message


def test_config_folders_are_relative_to_file(tmp_path: Path) -> None:
    server = parse_config(LOCAL, str(tmp_path / "fleet.yaml")).servers["one"]
    assert isinstance(server, LocalServer)
    assert server.weights.sources[0].model_dump() == {"folder": str(tmp_path / "models" / "m")}


def test_config_same_processes_share_digest() -> None:
    base = parse_config(LOCAL, "fleet.yaml").digest
    relabelled = LOCAL.replace("device: cpu", "device: cpu\n    label: internal").replace(
        "base: one", "base: one, small: one"
    )
    assert parse_config("# a comment\n" + relabelled, "fleet.yaml").digest == base
    assert parse_config(LOCAL.replace("1024", "2048"), "fleet.yaml").digest != base


@pytest.mark.parametrize(("written", "first"), [("", 900.0), ("patience: 300\n", 300.0), ("patience: 5\n", 5.0)])
def test_config_first_start_patience_default(written: str, first: float) -> None:
    assert parse_config(LOCAL + written, "fleet.yaml").first_start_patience == first


def test_secret_is_read_from_its_reference(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    assert read_secret("env:KEY", {"KEY": " from-the-environment "}) == "from-the-environment"
    assert read_secret(f"file:{tmp_path / 'key'}") == "from-a-file"


@pytest.mark.parametrize("reference", ["env:NOT_SET", "file:/nowhere/key"])
def test_secret_missing_is_coded_error(reference: str) -> None:
    with pytest.raises(FleetError) as caught:
        read_secret(reference, {})
    assert caught.value.code == "F105"


@pytest.mark.parametrize("content", ["one\ntwo\n", "one\x00two"])
def test_secret_not_sendable_is_coded_error_and_hidden(content: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(FleetError) as caught:
        read_secret(f"file:{tmp_path / 'key'}")
    assert caught.value.code == "F105"
    assert "two" not in str(caught.value)


def test_fleet_file_unreadable_is_coded_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "none.yaml")
    assert caught.value.code == "F100"


@pytest.mark.parametrize(
    ("memory", "size"), [("16GiB", 16 << 30), ("1.5GB", 1_500_000_000), ("512MiB", 512 << 20), ("900MB", 900_000_000)]
)
def test_config_memory_is_a_size(memory: str, size: int) -> None:
    assert parse_config(f"{LOCAL}start: on_demand\nmemory: {memory}\n", "fleet.yaml").memory_bytes == size


@pytest.mark.parametrize("memory", ["16", "16 GiB", "16G", "-1GiB", "GiB", "1.2.3GB"])
def test_config_memory_without_a_unit_is_refused(memory: str) -> None:
    (fault,) = faults(f"{LOCAL}start: on_demand\nmemory: {memory!r}\n")
    assert fault.message.startswith("memory: String should match pattern")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (LOCAL + "memory: 16GiB\n", "16GiB"),
        (LOCAL.replace("device: cpu", "device: cpu\n    idle_stop: 60"), "60"),
    ],
)
def test_config_keys_of_servers_on_demand_need_it(text: str, named: str) -> None:
    (fault,) = faults(text)
    assert (fault.code, fault.hint) == ("F100", "write start: on_demand, or leave this key out")
    assert fault.location is not None
    assert fault.location.text[fault.location.column - 1 :] == named
    assert parse_config(f"{text}start: on_demand\n", "fleet.yaml")


def test_config_workstation_starts_on_demand_within_its_memory() -> None:
    config = read_config(CONFIGS / "workstation.yaml")
    assert (config.start, config.memory_bytes) == ("on_demand", 16 << 30)
    others = [config.model_copy(update=change) for change in ({"start": "together"}, {"memory": "8GiB"})]
    assert len({one.digest for one in (config, *others)}) == 3, "their supervisors behave differently"
