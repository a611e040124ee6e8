"""Agent variants, as in `--agent NAME@OTHER`."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.agents.registry import Registry
from orchestra.cli.runs.whatif import parse_variant
from orchestra.core.errors import InputError


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def test_an_agent_may_be_asked_with_another_prompt_or_on_another_model(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "short.md").write_text("{{ question }} {{ context }}")
    other = parse_variant(registry, f"generative_reader@{tmp_path / 'short.md'}").replacement
    assert getattr(other, "template", "") == "{{ question }} {{ context }}"
    assert getattr(parse_variant(registry, "generative_reader@model:large").replacement, "model", "") == "large"


@pytest.mark.parametrize("other", ["short.md", "model:large", "adapter"])
def test_an_ensemble_has_no_prompt_no_model_and_no_adapter_of_its_own(
    registry: Registry, tmp_path: Path, other: str
) -> None:
    (tmp_path / "short.md").write_text("{{ question }}")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="reader is an ensemble") as caught:
        parse_variant(registry, f"reader@{other if ':' in other else tmp_path / other}")
    assert caught.value.code == "C041"
    assert "generative_reader" in (caught.value.hint or "")


def test_a_member_may_stand_in_for_its_ensemble(registry: Registry) -> None:
    assert parse_variant(registry, "reader@generative_reader").replacement == registry.card("generative_reader")


def test_the_folder_of_an_ensemble_has_its_members(registry: Registry, tmp_path: Path) -> None:
    card = registry.card("reader")
    assert card.folder is not None
    (tmp_path / "agent.yaml").write_text((card.folder / "agent.yaml").read_text().replace("enough:", "# enough:"))
    assert getattr(parse_variant(registry, f"reader@{tmp_path}").replacement, "member_cards", ()) == card.member_cards
