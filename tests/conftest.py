"""Settings of all tests: in CI hypothesis tries the same examples each time, and nightly new ones; no example is timed.
The projects that tests write are trusted; tests of trust take the variable away.
"""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis.internal.conjecture import providers

os.environ["ORCHESTRA_TRUST"] = "1"
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
if os.environ.get("CI") and not os.environ.get("ORCHESTRA_TEST_RANDOM"):
    settings.load_profile("ci")
    # Hypothesis also draws constants of the modules imported so far, even with `derandomize`. Which modules those are
    # depends on the tests that ran before in the same process, so one and the same commit passed and failed.
    providers._get_local_constants = lambda: providers._local_constants
else:
    settings.load_profile("here")
