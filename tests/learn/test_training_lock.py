"""A training is held by one process: another one is refused, also where the first was killed in the meantime or the folder was cleared."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.core.errors import InputError
from orchestra.learn.training_lock import lock_training

HOLD = """\
import sys
from pathlib import Path
from orchestra.learn.training_lock import lock_training
with lock_training(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_training_that_another_process_does_is_refused_until_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "learn" / "desk" / "abc"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        shutil.rmtree(folder, ignore_errors=True)  # as --fresh does
        with (
            pytest.raises(InputError, match="another process runs this training") as caught,
            lock_training(folder),
        ):
            pass
        assert caught.value.code == "N125"
        with lock_training(folder.with_name("other")):
            pass
        other.kill()
    with lock_training(folder):
        pass
