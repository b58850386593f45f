"""What every test of this package sees: one thread per process, no network."""

from __future__ import annotations

import sys
from pathlib import Path

from vtp.testing.environment import prepare, seeded  # noqa: F401 (a fixture)

prepare()  # before torch or tokenizers are imported

sys.path.insert(0, str(Path(__file__).parent))  # alpro_models.py
