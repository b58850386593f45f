"""The package as a user gets it."""

import ast
import importlib
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Literal

import pytest

import vtp_kernels

SOURCE = Path(vtp_kernels.__file__).parent
MODULES = sorted(module.name for module in pkgutil.iter_modules([str(SOURCE)]))


@pytest.mark.parametrize("name", ["", *(f".{module}" for module in MODULES)])
def test_every_public_name_exists_and_is_listed(name):
    module = importlib.import_module(f"vtp_kernels{name}")
    assert sorted(module.__all__, key=str.lower) == sorted(set(module.__all__), key=str.lower)
    for public in module.__all__:
        assert hasattr(module, public)
        found = getattr(module, public)
        assert not callable(found) or isinstance(found, type(Literal["a"])) or found.__doc__, public


def test_only_torch_and_triton_are_imported():
    """transformers inside functions alone, vtp never."""
    for path in SOURCE.glob("*.py"):
        tree = ast.parse(path.read_text())
        top = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        top |= {node.module.split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
        assert top - set(sys.stdlib_module_names) <= {"torch", "triton", "vtp_kernels"}, path
        assert "vtp" not in {getattr(node, "module", None) for node in ast.walk(tree)}


def test_kernels_declare_no_shortcuts_that_break_offline_or_twice():
    """No autotuning (differs between runs), no atomics (not deterministic), no block pointers (gone in Triton 3.9)."""
    text = "\n".join(path.read_text() for path in SOURCE.glob("*.py"))
    for forbidden in ("autotune", "atomic_add", "make_block_ptr"):
        assert forbidden not in text


@pytest.mark.slow
def test_wheel_installs_alone(tmp_path):
    """Built from kernels/, unpacked outside the repository, beside torch and triton."""
    project = Path(__file__).parents[1]
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(project),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("vtp_kernels-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert {n.split("/")[0] for n in names} == {
        "vtp_kernels",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    assert "vtp_kernels/py.typed" in names and any(n.endswith("LICENSE") for n in names)
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert [line.split()[1].split(">")[0] for line in required] == ["torch", "triton"]
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(target), str(wheel)], check=True
    )
    check = f"import sys; sys.path.insert(0, {str(target)!r}); import vtp_kernels as k; print(k.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert found.startswith(str(target))
