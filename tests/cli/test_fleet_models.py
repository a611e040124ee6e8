"""`orchestra fleet models` and `orchestra fleet add`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.fleet.test_base_models import write_model


def test_fleet_models_lists_packaged_and_own_fleets(shell: Shell) -> None:
    Path("configs").mkdir()
    Path("configs/broken.yaml").write_text("schema: orchestra/fleet/v1\n")
    said = shell("fleet", "models")
    assert said.code == 0, said.err
    assert "smollm2-135m-instruct" in said.out
    assert "configs/broken.yaml" in said.err
    data = shell("fleet", "models", "--json").json
    (laptop,) = (model for model in data["models"] if model["fleet"] == "laptop")
    assert (laptop["server"], laptop["installed"]) == ("smol", False)
    assert list(data["broken"]) == ["broken"]


def test_fleet_add_folder_writes_a_fleet_that_validates(shell: Shell) -> None:
    write_model(Path("models/Tiny-Qwen"))
    said = shell("fleet", "add", "models/Tiny-Qwen", "--no-check")
    assert said.code == 0, said.err
    assert "orchestra run … --fleet tiny_qwen" in said.out
    assert shell("validate", "configs/tiny_qwen.yaml").code == 0
    again = shell("fleet", "add", "models/Tiny-Qwen", "--no-check")
    assert (again.code, "C016" in again.err) == (2, True)
    named = shell("fleet", "add", "models/Tiny-Qwen", "--no-check", "--name", "other", "--json").json
    assert (named["fleet"], named["answer"]) == ("other", None)


@pytest.mark.parametrize("check", ["--check", "--no-check"])
def test_fleet_add_model_too_large_writes_nothing(check: str, shell: Shell) -> None:
    write_model(Path("models/large"), elements=1 << 38)
    said = shell("fleet", "add", "models/large", check)
    assert (said.code, "F224" in said.err) == (1, True), said.err
    assert not Path("configs/large.yaml").exists()


def test_fleet_add_unknown_device_is_refused(shell: Shell) -> None:
    write_model(Path("models/m"))
    said = shell("fleet", "add", "models/m", "--device", "tpu")
    assert (said.code, "--device cpu" in said.err) == (2, True)


@pytest.mark.parametrize("check", ["--check", "--no-check"])
def test_fleet_add_gpu_without_gpu_writes_nothing(check: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Path.cwd() / "nvidiactl"
    monkeypatch.setattr("orchestra.fleet.base_models.GPU_DEVICES", (driver,))
    write_model(Path("models/m"))
    said = shell("fleet", "add", "models/m", "--device", "gpu", check)
    assert (said.code, "F227" in said.err) == (1, True), said.err
    assert "--device cpu" in said.err
    assert not Path("configs/m.yaml").exists()
    driver.touch()
    assert shell("fleet", "add", "models/m", "--device", "gpu", "--no-check").code == 0
