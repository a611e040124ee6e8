"""The files of `deploy/`: they agree with each other and with the command line, and grant no more than is needed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestra.core.settings import SETTING_NAMES, Settings
from orchestra.server.application import all_endpoints
from tests.packaging.chart import CHART, render

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
USER = 10001
VARIANTS: dict[str, dict[str, Any]] = {
    "file": {},
    "database": {"journal": {"secretName": "db"}, "replicas": 3},
    "everything": {
        "hostNames": ["ai.example.com"],
        "journal": {"volume": {"storageClass": "fast"}},
        "endpoint": {"url": "http://models:8000/v1", "model": "qwen", "secretName": "models"},
        "project": {"configMap": "project"},
        "otlp": "http://collector:4318",
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"},
        "monitor": {"enabled": True, "secretName": "metrics"},
        "gpu": {"nvidia.com/gpu": 1},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def workload(values: dict[str, Any]) -> dict[str, Any]:
    (found,) = [one for one in render(values) if one["kind"] in ("Deployment", "StatefulSet")]
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_chart_pod_is_restricted(variant: str) -> None:
    pod = workload(VARIANTS[variant])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == USER
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    security = container["securityContext"]
    assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (True, False)
    assert security["capabilities"] == {"drop": ["ALL"]}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claimed = {one["metadata"]["name"] for one in workload(VARIANTS[variant])["spec"].get("volumeClaimTemplates", ())}
    assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed


def test_chart_with_a_file_has_one_server_and_its_volume() -> None:
    found = workload({"replicas": 3})
    assert (found["kind"], found["spec"]["replicas"]) == ("StatefulSet", 1)
    (claim,) = found["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"


def test_chart_with_a_database_has_the_address_from_a_secret_only() -> None:
    found = workload(VARIANTS["database"])
    assert (found["kind"], found["spec"]["replicas"]) == ("Deployment", 3)
    environment = {one["name"]: one for one in found["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["ORCHESTRA_JOURNAL"]["value"] == "env:DATABASE_URL"
    assert environment["DATABASE_URL"]["valueFrom"] == {"secretKeyRef": {"name": "db", "key": "address"}}


def test_chart_names_are_those_of_the_service() -> None:
    kinds = {one["kind"]: one for one in render(VARIANTS["everything"])}
    assert kinds.keys() == {"StatefulSet", "Service", "Ingress", "ServiceMonitor"}
    pod = kinds["StatefulSet"]["spec"]["template"]
    assert pod["metadata"]["labels"] == kinds["Service"]["spec"]["selector"]
    assert pod["metadata"]["labels"] == kinds["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert kinds["StatefulSet"]["spec"]["serviceName"] == kinds["Service"]["metadata"]["name"] == "demo"
    (container,) = pod["spec"]["containers"]
    (service_port,), (port,) = kinds["Service"]["spec"]["ports"], container["ports"]
    assert service_port["targetPort"] == port["name"]
    (scraped,) = kinds["ServiceMonitor"]["spec"]["endpoints"]
    assert (scraped["port"], scraped["path"]) == (service_port["name"], "/metrics")
    (rule,) = kinds["Ingress"]["spec"]["rules"]
    (way,) = rule["http"]["paths"]
    assert way["backend"]["service"] == {"name": "demo", "port": {"name": service_port["name"]}}
    assert {argument for argument in container["args"] if argument.startswith("--host-name")} == {
        "--host-name=demo",
        "--host-name=demo.apps.svc",
        "--host-name=ai.example.com",
        "--host-name=orchestra.example.com",
    }
    assert container["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}


def test_chart_probes_request_routes_of_the_server() -> None:
    (container,) = workload({})["spec"]["template"]["spec"]["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert {*paths.values(), "/metrics"} <= {endpoint.path for endpoint in all_endpoints()}


def test_chart_stop_leaves_time_to_drain() -> None:
    pod = workload({})["spec"]["template"]["spec"]
    (drain,) = [argument for argument in pod["containers"][0]["args"] if argument.startswith("--drain=")]
    assert int(drain.removeprefix("--drain=")) < pod["terminationGracePeriodSeconds"]


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
@pytest.mark.parametrize("variant", VARIANTS)
def test_chart_is_accepted_and_rendered_the_same_by_helm(tmp_path: Path, variant: str) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VARIANTS[variant]))
    options = [str(CHART), "--values", str(values), "--namespace", "apps"]
    subprocess.run(["helm", "lint", "--strict", *options], check=True, capture_output=True)
    rendered = subprocess.run(["helm", "template", "demo", *options], check=True, capture_output=True, text=True).stdout
    found = {one["kind"]: one for one in yaml.safe_load_all(rendered) if one}
    assert found == {one["kind"]: one for one in render(VARIANTS[variant])}


def test_chart_values_are_all_used() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").glob("*.yaml"))
    for key, value in yaml.safe_load((CHART / "values.yaml").read_text()).items():
        names = [f"{key}.{inner}" for inner in value] if isinstance(value, dict) and value else [key]
        for name in names:
            assert f".Values.{name}" in templates, name


def test_compose_services_of_ours_are_restricted() -> None:
    services = compose()["services"]
    assert services.keys() == {"server", "worker", "postgres", "collector"}
    for name in ("server", "worker"):
        service = services[name]
        assert (service["read_only"], service["user"]) == (True, f"{USER}:{USER}")
    assert services["collector"]["read_only"]
    for name in ("server", "worker", "collector"):
        service = services[name]
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert services["server"]["ports"] == ["127.0.0.1:${ORCHESTRA_PORT:-8100}:8100"]
    assert "ports" not in services["postgres"]


def test_compose_stop_leaves_time_to_drain() -> None:
    server = compose()["services"]["server"]
    drain = server["command"][server["command"].index("--drain") + 1]
    assert int(drain) < int(server["stop_grace_period"].removesuffix("s"))


def test_compose_worker_ends_its_command_when_it_is_stopped(tmp_path: Path) -> None:
    command = tmp_path / "orchestra"
    command.write_text(
        f"#!/bin/sh\ntrap 'echo ended >> {tmp_path}/log; exit 143' TERM\n"
        f"echo $@ >> {tmp_path}/log\nwhile :; do sleep 0.1; done\n"
    )
    command.chmod(0o755)
    (script,) = compose()["services"]["worker"]["command"]
    worker = subprocess.Popen(
        ["/bin/sh", "-c", script.replace("$$", "$")], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, start_new_session=True
    )
    try:
        while not (tmp_path / "log").exists():
            assert worker.poll() is None
            time.sleep(0.01)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
    assert (tmp_path / "log").read_text().splitlines() == ["runs resume --all", "ended"]


def test_compose_variables_are_in_the_example() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    assert used == set(re.findall(r"^([A-Z_]+)=", (DEPLOY / "example.env").read_text(), re.MULTILINE))


def test_collector_pipeline_names_what_it_defines() -> None:
    found = yaml.safe_load((DEPLOY / "collector.yaml").read_text())
    pipeline = found["service"]["pipelines"]["traces"]
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) == found[part].keys()
    assert found["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    assert compose()["x-orchestra"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "orchestra.service", "chart/templates/server.yaml"])
def test_settings_in_the_environment_exist(file: str) -> None:
    others = {"ORCHESTRA_PROJECT", "ORCHESTRA_TRUST", "ORCHESTRA_PROJECT_FOLDER", "ORCHESTRA_PORT"}
    others |= {"ORCHESTRA_HOST_NAME", "ORCHESTRA_IMAGE_TARGET"}
    for name in set(re.findall(r"\bORCHESTRA_[A-Z_]+", (DEPLOY / file).read_text())) - others:
        assert name.removeprefix("ORCHESTRA_").lower() in SETTING_NAMES, name


def test_example_project_is_readable(tmp_path: Path) -> None:
    project = DEPLOY / "project"
    assert Settings.load(project=project, environ={"HOME": str(tmp_path)}).project == project


def test_image_runs_without_root_and_keeps_dependencies_locked() -> None:
    stages = re.split(r"^FROM ", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    targets = {stage.split()[2]: stage for stage in stages}
    assert targets.keys() == {"build", "base", "server", "cpu", "gpu"}
    for name in ("server", "cpu", "gpu"):
        assert re.search(rf"^USER {USER}:{USER}$", targets[name], re.MULTILINE)
        extras = re.search(r"orchestra-slm\[([a-z,]+)\]", targets[name])
        assert extras is not None
        assert {"server", "postgres", "otel"} <= set(extras[1].split(","))
    for name in ("server", "cpu"):
        assert f"--constraint /dist/{name}.txt" in targets[name]


def test_unit_runs_without_root_and_privileges() -> None:
    directives = set((DEPLOY / "orchestra.service").read_text().splitlines())
    assert directives >= {
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "SystemCallFilter=@system-service",
        "UMask=0077",
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    text = (DEPLOY / "orchestra.service").read_text()
    unit = tmp_path / "orchestra.service"
    unit.write_text(text.replace("/opt/orchestra/bin/orchestra", "/bin/true"))
    found = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert "/opt/orchestra/bin/orchestra serve" in text
    (drain,), (stop,) = re.findall(r"--drain (\d+)", text), re.findall(r"TimeoutStopSec=(\d+)", text)
    assert int(drain) < int(stop)
