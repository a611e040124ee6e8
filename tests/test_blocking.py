"""The façade without asyncio: what it gives, and where it refuses to wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra import blocking, tool
from orchestra.config import Settings
from orchestra.errors import OrchestraError


@tool(effect="pure")
def shout(text: str) -> str:
    """Says it louder."""
    return text.upper()


def settings(folder: Path) -> Settings:
    return Settings.load({"journal": "off"}, start=folder)


def test_a_plain_tool_may_use_it_within_a_run(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:

        @tool(effect="pure")
        def nested(text: str) -> str:
            return str(orchestra.run(shout, text=text).value)

        assert orchestra.run(nested, text="tea").value == "TEA"


def test_a_coroutine_of_its_own_loop_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:

        @tool(effect="pure")
        async def nested(text: str) -> str:
            try:
                return str(orchestra.run(shout, text=text).value)
            except OrchestraError as error:
                return error.code

        assert orchestra.run(nested, text="tea").value == "E027"


@pytest.mark.filterwarnings("error")
def test_once_it_is_closed_it_says_so(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:
        assert orchestra.run(shout, text="tea").value == "TEA"
    with pytest.raises(OrchestraError, match="closed") as caught:
        orchestra.run(shout, text="tea")
    assert caught.value.code == "E028"
