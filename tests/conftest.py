"""Settings of all tests: in CI hypothesis tries the same examples each time, and no example is timed. The projects that
tests write are trusted; tests of trust take the variable away.
"""

from __future__ import annotations

import os

from hypothesis import settings

os.environ["ORCHESTRA_TRUST"] = "1"
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
