"""One process holds a training: a second one is refused, also after the first was killed or the folder was cleared."""

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


def test_lock_training_second_process_refused(tmp_path: Path) -> None:
    folder = tmp_path / "learn" / "desk" / "abc"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        shutil.rmtree(folder, ignore_errors=True)  # like --fresh
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
