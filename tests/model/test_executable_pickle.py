"""A checkpoint that would execute something is refused by name, and torch's advice to execute it is not passed on."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch

from vtp.errors import DataError
from vtp.model.importing import _pickle


class Runs:
    def __init__(self, function: object, *arguments: str) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "posix.system"), (eval, "eval"), (subprocess.getoutput, "getoutput")]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_it_is_named_and_nothing_runs(function: object, name: str, zipped: bool, tmp_path: Path) -> None:
    file, trace = tmp_path / "model.pth", tmp_path / "trace"
    content = {"a": Runs(function, f"open({str(trace)!r}, 'w')" if function is eval else f"touch {trace}")}
    if zipped:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError) as caught:
        _pickle(file)
    told = str(caught.value)
    assert name in told and "\n" not in told
    assert "weights_only" not in told and "Re-running" not in told and "allowlist" not in told
    assert not trace.exists()
