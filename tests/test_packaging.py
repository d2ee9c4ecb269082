"""What an installation brings: one package, the model zoo inside it as real files, and the command."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import namedtensor

ROOT = Path(__file__).resolve().parent.parent
# Packages that the checkout has outside of the package's own directory, behind links in it.
LINKED = ("export", "models")


def files_below(directory: Path) -> set[str]:
    """What belongs in the wheel: everything but byte code."""
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", build, target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return zipfile.ZipFile(target / result.stdout.split()[-1])


def test_wheel_has_nothing_but_the_package_at_its_top(wheel: zipfile.ZipFile) -> None:
    version = namedtensor.__version__
    assert {name.split("/")[0] for name in wheel.namelist()} == {"namedtensor", f"namedtensor-{version}.dist-info"}


@pytest.mark.parametrize("directory", LINKED)
def test_wheel_has_every_file_behind_a_link_once(wheel: zipfile.ZipFile, directory: str) -> None:
    prefix = f"namedtensor/{directory}/"
    packed = [name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)]
    assert sorted(packed) == sorted(files_below(ROOT / directory))


def test_wheel_has_every_file_of_the_package_once(wheel: zipfile.ZipFile) -> None:
    linked = {f"{directory}/{name}" for directory in LINKED for name in files_below(ROOT / directory)}
    packed = [name for name in wheel.namelist() if name.split("/")[0] == "namedtensor" and name[12:] not in linked]
    assert sorted(packed) == sorted(f"namedtensor/{name}" for name in files_below(ROOT / "namedtensor") - linked)
    assert "namedtensor/py.typed" in packed


def test_wheel_is_for_one_platform_exactly_if_it_holds_native_code(wheel: zipfile.ZipFile) -> None:
    native = any(name.startswith("namedtensor/_native/") for name in wheel.namelist())
    metadata = wheel.read(f"namedtensor-{namedtensor.__version__}.dist-info/WHEEL").decode()
    assert ("Tag: py3-none-any" in metadata) == (not native)
    assert ("Root-Is-Purelib: true" in metadata) == (not native)


@pytest.mark.parametrize("directory", LINKED)
def test_wheel_holds_the_contents_and_not_links(wheel: zipfile.ZipFile, directory: str) -> None:
    packed = wheel.read(f"namedtensor/{directory}/__init__.py")
    assert packed == (ROOT / directory / "__init__.py").read_bytes()


@pytest.mark.parametrize("directory", LINKED)
def test_checkout_resolves_packages_through_their_links(directory: str) -> None:
    package = importlib.import_module(f"namedtensor.{directory}")
    assert package.__file__ is not None
    assert Path(package.__file__).resolve() == ROOT / directory / "__init__.py"


@pytest.mark.parametrize("directory", LINKED)
def test_links_are_relative_so_that_a_clone_has_them_too(directory: str) -> None:
    assert os.readlink(ROOT / "namedtensor" / directory) == f"../{directory}"


def test_metadata_agrees_with_the_package() -> None:
    assert importlib.metadata.version("namedtensor") == namedtensor.__version__
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="namedtensor")
    assert command.value == "namedtensor.cli:main"


def test_jax_and_jaxlib_are_pinned_to_one_release() -> None:
    requirements = importlib.metadata.requires("namedtensor") or []
    pins = {name: version for name, _, version in (line.partition("==") for line in requirements) if version}
    assert pins["jax"] == pins["jaxlib"] == importlib.metadata.version("jaxlib")
