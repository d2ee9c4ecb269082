"""What refers to an image: a bill of materials that SPDX's own validator accepts, and where the image comes from."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

import namedtensor
from namedtensor.export import oci
from namedtensor.export.archive._build import LEAN_RUNNER, RUNNER
from namedtensor.export.oci._crates import crates
from tests.export.oci.conftest import Read

LOCK = Path(__file__).parents[3] / "runner" / "Cargo.lock"
PLUGINS = {
    "cuda": {"releases": {"jax-cuda13-pjrt": "0.11.2"}, "library": "plugins/cuda/plugin.so", "left_out": {}},
    "rocm": {"releases": {"jax-rocm7-pjrt": "0.11.2"}, "library": None, "left_out": {"the plugin": "outside"}},
}


def documents(archive: Path, directory: Path, **options: Any) -> tuple[Read, Any, Any]:
    """The image, its bill of materials and its provenance."""
    oci.build([archive], directory / "layout", **options)
    image = Read(directory / "layout")
    found = {}
    for descriptor in image.index["manifests"][1:]:
        manifest = image.json(descriptor)
        assert manifest["subject"] == {key: image.image[key] for key in ("mediaType", "digest", "size")}
        assert manifest["artifactType"] == descriptor["artifactType"]
        assert image.blob(manifest["config"]) == b"{}"
        (layer,) = manifest["layers"]
        assert layer["mediaType"] == manifest["artifactType"]
        found[layer["mediaType"]] = image.json(layer)
    return image, found["application/spdx+json"], found["application/vnd.in-toto+json"]


def valid(bill: Any, directory: Path) -> None:
    (directory / "bill.spdx.json").write_text(json.dumps(bill))
    messages = validate_full_spdx_document(parse_file(str(directory / "bill.spdx.json")))
    assert [message.validation_message for message in messages] == []


def packages(bill: Any) -> dict[str, Any]:
    # The image comes first; its runner has the same name.
    return {package["name"]: package for package in reversed(bill["packages"])}


def related(bill: Any) -> set[tuple[str, str, str]]:
    names = {package["SPDXID"]: package["name"] for package in bill["packages"]}
    return {
        (names.get(one["spdxElementId"], ""), one["relationshipType"], names[one["relatedSpdxElement"]])
        for one in bill["relationships"]
    }


# What only the larger of the static programs has.
OPTIONAL = {"minijinja", "rustls", "tokenizers", "ureq"}


@pytest.fixture(scope="module")
def listed() -> list[Any]:
    """The crates of the program that is in the archive of digits."""
    if not LEAN_RUNNER.is_file():
        pytest.skip("scripts/build-runner has not built the runner")
    return crates(LEAN_RUNNER.read_bytes())


def test_the_larger_runner_names_its_crates_too(listed: list[Any]) -> None:
    every = {crate.name for crate in crates(RUNNER.read_bytes())}
    assert {crate.name for crate in listed} < every
    assert every > OPTIONAL


def test_the_runner_names_the_crates_that_it_was_made_of(listed: list[Any]) -> None:
    locked = {(one["name"], one["version"]) for one in tomllib.loads(LOCK.read_text())["package"]}
    assert {(crate.name, crate.version) for crate in listed} <= locked
    names = {crate.name for crate in listed}
    assert {"nt-runner", "nt-cpu", "nt-kernels", "libc", "safetensors", "serde_json"} <= names
    # What only tests, other systems and the compiler use is in Cargo.lock, and not in the program.
    assert names.isdisjoint({"windows-sys", "serde_derive", "syn"} | OPTIONAL)
    assert [crate.name for crate in listed if crate.root] == ["nt-runner"]
    assert all(crate.license for crate in listed)


def test_the_bill_lists_every_crate_with_its_license(real: Path, listed: list[Any], tmp_path: Path) -> None:
    _, bill, _ = documents(real, tmp_path)
    valid(bill, tmp_path)
    found = packages(bill)
    assert {crate.name for crate in listed if not crate.root} <= set(found)
    assert found["libc"]["licenseDeclared"] == "MIT OR Apache-2.0"
    assert found["libc"]["externalRefs"][0]["referenceLocator"].startswith("pkg:cargo/libc@0.2")
    assert "externalRefs" not in found["nt-cpu"]
    assert ("digits", "DEPENDS_ON", "nt-cpu") in related(bill)
    assert ("nt-cpu", "DEPENDS_ON", "nt-kernels") in related(bill)


def test_the_bill_describes_the_image_by_its_digest(digits: Path, tmp_path: Path) -> None:
    image, bill, _ = documents(digits, tmp_path, choices=oci.Choices(version="1.2"))
    valid(bill, tmp_path)
    digest = image.image["digest"].removeprefix("sha256:")
    described = packages(bill)["digits"]
    assert described["checksums"] == [{"algorithm": "SHA256", "checksumValue": digest}]
    assert described["versionInfo"] == "1.2"
    assert ("", "DESCRIBES", "digits") in related(bill)
    assert digest in bill["documentNamespace"]
    assert ("digits", "CONTAINS", "digits weights") in related(bill)
    assert ("jaxlib", "BUILD_TOOL_OF", "digits") in related(bill)


def test_the_bill_names_plugins_by_their_packages(changed: Callable[..., Path], tmp_path: Path) -> None:
    _, bill, _ = documents(changed("x", plugins=PLUGINS), tmp_path)
    valid(bill, tmp_path)
    references = packages(bill)["jax-cuda13-pjrt"]["externalRefs"]
    assert [one["referenceLocator"] for one in references] == ["pkg:pypi/jax-cuda13-pjrt@0.11.2"]
    assert ("digits", "CONTAINS", "jax-cuda13-pjrt") in related(bill)
    assert ("digits", "DEPENDS_ON", "jax-rocm7-pjrt") in related(bill)


def test_provenance_is_of_the_image_and_its_materials(digits: Path, tmp_path: Path) -> None:
    image, _, statement = documents(digits, tmp_path)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [f"sha256:{one['digest']['sha256']}" for one in statement["subject"]] == [image.image["digest"]]
    definition = statement["predicate"]["buildDefinition"]
    dependencies = {one["name"]: one["digest"]["sha256"] for one in definition["resolvedDependencies"]}
    labels = image.config["config"]["Labels"]
    assert labels["namedtensor.archive.digest"] == f"sha256:{dependencies['archive']}"
    assert labels["namedtensor.weights.digest"] == f"sha256:{dependencies['weights']}"
    assert definition["externalParameters"]["targets"] == labels["namedtensor.targets"].split(",")
    builder = statement["predicate"]["runDetails"]["builder"]
    assert builder["version"] == {"namedtensor": namedtensor.__version__}


@pytest.mark.parametrize(
    "program",
    [b"", b"\x7fELF", b"\x7fELF" + bytes(300), b"\x7fELF\x02\x01\x01" + b"\xff" * 4000],
    ids=["empty", "magic", "zeros", "ones"],
)
def test_a_program_that_says_nothing_has_no_crates(program: bytes) -> None:
    assert crates(program) == []


def test_a_damaged_program_has_its_crates_or_none(listed: list[Any]) -> None:
    program = LEAN_RUNNER.read_bytes()
    # The header of the file, and the table of its sections at its end.
    for start in [*range(0, 64, 4), *range(len(program) - 2048, len(program), 128)]:
        damaged = program[:start] + b"\xff" * 4 + program[start + 4 :]
        assert crates(damaged) in ([], listed)
