"""A base model of the user, end to end: the commands of docs/how-to/own-base.md with tiny random models."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.docs.blocks import ROOT
from tests.learn.conftest import make_card, write_tiny

PAGE = ROOT / "docs" / "how-to" / "own-base.md"
CSV = "context,question,answer\n" + "".join(f"passage {at} Ada,who?,{'Ada' if at % 2 else ''}\n" for at in range(30))
QUICK = ("--rank", "2", "--batch", "200", "--device", "cpu")


def recipe(family: str) -> list[list[str]]:
    """Returns the commands of the recipe for a family on the page, as words."""
    found = re.search(rf"<!-- own base: {family} -->\n```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return [shlex.split(line.removeprefix("$ orchestra ")) for line in found[1].splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_recipe_trains_an_adapter_for_the_added_base(
    shell: Shell, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, data, train = recipe(family)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    make_card(Path())
    Path("rows.csv").write_text(CSV)
    write_tiny(Path(add[2]), family)
    assert shell(*add, "--no-check").code == 0
    assert shell(*data, "--tune", "0.3").code == 0
    train[train.index("--minutes") + 1] = "0.05"
    said = shell(*train, *QUICK)
    assert said.code == 0, said.err
    lines = said.err.splitlines()
    assert lines[0].startswith("looking for the weights"), "progress is shown from the start"
    assert lines[-1].startswith("trained "), "--minutes ended it"
    manifest = json.loads(Path(train[train.index("--out") + 1], "manifest.json").read_text())
    assert manifest["base"] == add[add.index("--name") + 1]


def test_train_on_quantized_base_is_refused(shell: Shell, tiny: Path) -> None:
    make_card(Path())
    Path("rows.csv").write_text(CSV)
    base = Path("models/quantized")
    base.mkdir(parents=True)
    for file in tiny.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    assert shell("fleet", "add", str(base), "--name", "small", "--no-check").code == 0
    assert "quantization: gptq" in Path("configs/small.yaml").read_text()
    assert shell("learn", "data", "finder", "rows.csv", "--out", "set", "--licence", "own", "--tune", "0.3").code == 0
    said = shell("learn", "train", "finder", "--data", "set", "--fleet", "small", "--epochs", "1", *QUICK)
    assert (said.code, "N108" in said.err) == (2, True), said.err
