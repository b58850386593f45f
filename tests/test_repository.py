"""The repository keeps its promises: packaging lists agree, options parse, no private path is left in it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIG_FILES = sorted(
    file for folder in ("core", "plugins", "kernels") for file in (ROOT / folder).rglob("conf/**/*.yaml")
)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_builtin_package_is_in_the_wheel_and_in_editable_mode(project):
    hatch = project["tool"]["hatch"]["build"]
    for point in project["project"]["entry-points"]["vtp.plugins"].values():
        package = point.partition(".")[0]
        folder = next(folder for folder in hatch["targets"]["wheel"]["packages"] if folder.endswith(f"/{package}"))
        assert str(Path(folder).parent) in hatch["dev-mode-dirs"]
        assert (ROOT / folder / "plugin.py").is_file()


def test_every_addon_is_in_editable_mode(project):
    """An add-on has its own pyproject; the root's editable install shows it all the same."""
    for file in [*ROOT.glob("plugins/*/*/pyproject.toml"), *ROOT.glob("kernels/pyproject.toml")]:
        source = file.parent.relative_to(ROOT) / "src"
        assert str(source) in project["tool"]["hatch"]["build"]["dev-mode-dirs"], source
        addon = tomllib.loads(file.read_text())["project"]
        for name, value in addon.get("entry-points", {}).get("vtp.plugins", {}).items():
            assert project["project"]["entry-points"]["vtp.workspace"][name] == value


def test_tests_linter_and_type_checker_see_every_package(project):
    """They are told by pattern, so that one more package needs no line here."""
    tool = project["tool"]
    found = {
        "tests": {path for pattern in tool["pytest"]["ini_options"]["testpaths"] for path in ROOT.glob(pattern)},
        "ruff": {path for pattern in tool["ruff"]["src"] for path in ROOT.glob(pattern)},
        "mypy": {path for pattern in tool["mypy"]["files"] for path in ROOT.glob(pattern)},
    }
    addons = [file.parent for file in [*ROOT.glob("plugins/*/*/pyproject.toml"), ROOT / "kernels/pyproject.toml"]]
    assert {folder / "tests" for folder in addons} <= found["tests"]
    sources = {ROOT / folder for folder in tool["hatch"]["build"]["dev-mode-dirs"]}
    assert sources == found["ruff"]
    packages = {package for folder in sources for package in folder.glob("vtp*") if (package / "__init__.py").is_file()}
    assert packages - found["mypy"] == {ROOT / "kernels/src/vtp_kernels"}  # Triton has no types


def test_constraints_lie_inside_the_declared_ranges(project):
    from packaging.requirements import Requirement

    pins = dict(re.findall(r"^([\w-]+)==([\d.]+?)(?:\.\*)?$", (ROOT / "constraints.txt").read_text(), re.M))
    declared = {r.name: r for r in map(Requirement, project["project"]["dependencies"])}
    for name, version in pins.items():
        if name in declared:
            assert declared[name].specifier.contains(version), f"{name} {version} is outside {declared[name]}"


@pytest.mark.parametrize("file", CONFIG_FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_option_files_parse(file):
    assert isinstance(yaml.safe_load(file.read_text()), dict)


@pytest.mark.parametrize(
    "file", [f for f in CONFIG_FILES if "/objective/" in str(f)], ids=lambda f: f"{f.parents[2].name}/{f.stem}"
)
def test_objective_options_are_packaged(file):
    """An option lies at its own name, or, as a choice of an objective, at that objective's (mvm_shallow of mvm)."""
    name = file.read_text().splitlines()[0].removeprefix("# @package objectives.")
    variation = file.with_stem(name).is_file()  # another choice for the same place, such as queues for vtc
    assert file.stem == name or file.stem.startswith(f"{name}_") or variation


def test_no_private_path_or_address_is_left():
    for file in ROOT.rglob("*"):
        if file.suffix in (".py", ".md", ".yaml", ".toml", ".txt", "") and file.is_file() and ".git/" not in str(file):
            if any(part.startswith(".") and part != ".ci" for part in file.relative_to(ROOT).parts):
                continue
            if file.relative_to(ROOT).parts[0] in ("outputs", "dist", "build"):
                continue
            text = file.read_text(errors="ignore")
            assert "/work" + "/main" not in text and "/work" + "/shared" not in text, file


def test_every_distribution_has_the_version_of_the_core():
    """A release is of all of them, `make dist`; the number stands in vtp.__version__."""
    import vtp

    files = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/*/pyproject.toml"), ROOT / "kernels" / "pyproject.toml"]
    versions = {str(file.relative_to(ROOT)): tomllib.loads(file.read_text())["project"]["version"] for file in files}
    assert len(versions) > 5 and set(versions.values()) == {vtp.__version__}, versions
