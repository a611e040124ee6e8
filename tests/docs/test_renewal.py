"""The script that writes the output blocks: it runs the command of a block, and touches nothing else."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.docs.blocks import ROOT

PAGE = """Before.

<!-- begin:{name} -->
```console
$ {command}
old
```
<!-- end:{name} -->

After.
"""


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    specification = importlib.util.spec_from_file_location("readme", ROOT / "scripts" / "readme.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["readme"] = module
    specification.loader.exec_module(module)
    return module


def page(name: str, command: str) -> str:
    return PAGE.format(name=name, command=command)


def test_a_block_gets_what_its_command_prints(readme: ModuleType) -> None:
    text = page("greeting", "echo hello")
    assert readme.renew(text, []) == text.replace("old", "hello")


def test_a_second_run_changes_nothing(readme: ModuleType) -> None:
    once = readme.renew(page("greeting", "echo hello"), [])
    assert readme.renew(once, []) == once


def test_benchmarks_run_only_when_asked_for(readme: ModuleType) -> None:
    text = page("bench-speed", "echo fast")
    assert readme.renew(text, []) == text
    assert "fast\n" in readme.renew(text, ["bench"])


def test_only_named_blocks_are_written(readme: ModuleType) -> None:
    text = page("one", "echo 1") + page("two", "echo 2")
    assert readme.renew(text, ["two"]) == page("one", "echo 1") + page("two", "echo 2").replace("old", "2")


def test_a_command_that_fails_leaves_the_page(readme: ModuleType) -> None:
    with pytest.raises(readme.Failed):
        readme.renew(page("broken", "false"), [])


def test_the_folder_of_the_checkout_is_not_told(readme: ModuleType) -> None:
    assert str(ROOT) not in readme.renew(page("place", "pwd"), [])


def test_the_summary_of_requests_agrees_with_their_pages(readme: ModuleType) -> None:
    text = (ROOT / "docs" / "evaluation" / "index.md").read_text("utf-8")
    assert readme.renew(text, ["asked"]) == text
    assert text.count(" are right, ") == 3
