"""What takes too long for every run: `make chaos` sets AGENTORCH_CHAOS=1."""

from __future__ import annotations

import os
import random

import pytest

IS_LONG = os.environ.get("AGENTORCH_CHAOS") == "1"

SEED = int(os.environ.get("AGENTORCH_SEED", random.randrange(10**6)))
"""Of everything that is left to chance; AGENTORCH_SEED sets it."""

long_only = pytest.mark.skipif(not IS_LONG, reason="takes long: make chaos")
