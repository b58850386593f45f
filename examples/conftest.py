"""Lets the tests of the examples run from a checkout, where nobody installed them."""

import sys
from pathlib import Path

from vtp.testing.environment import prepare, seeded  # noqa: F401 (a fixture)

prepare()
sys.path.extend(str(folder) for folder in Path(__file__).parent.glob("*/src"))
