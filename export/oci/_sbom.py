"""A bill of materials: SPDX 2.3, as JSON (https://spdx.github.io/spdx-spec/v2.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import namedtensor
from namedtensor.export.oci._base import Base
from namedtensor.export.oci._config import Choices, created
from namedtensor.export.oci._crates import Crate, crates
from namedtensor.export.oci._layout import Descriptor
from namedtensor.export.oci._libraries import Library
from namedtensor.export.oci._pack import Packed, plugins

_NOTHING = "NOASSERTION"
# SPDX wants a time; without SOURCE_DATE_EPOCH one that says it is none.
_NO_TIME = "1970-01-01T00:00:00Z"
_IMAGE = "SPDXRef-image"


class _Document:
    """Packages and what they have to do with each other, as they are found."""

    def __init__(self) -> None:
        self.packages: list[dict[str, Any]] = []
        self.relationships: list[dict[str, str]] = []

    def package(self, key: str, name: str, *, version: str | None = None, license: str = _NOTHING, **more: Any) -> str:
        reference = key if key.startswith("SPDXRef-") else f"SPDXRef-{re.sub(r'[^A-Za-z0-9.-]', '-', key)}"
        url = more.pop("url", None)
        package = {
            "SPDXID": reference,
            "name": name,
            **({"versionInfo": version} if version else {}),
            "downloadLocation": _NOTHING,
            "filesAnalyzed": False,
            "licenseConcluded": _NOTHING,
            "licenseDeclared": license,
            "copyrightText": _NOTHING,
            **more,
        }
        if url:
            package["externalRefs"] = [
                {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}
            ]
        self.packages.append(package)
        return reference

    def relate(self, one: str, kind: str, other: str) -> None:
        found = {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
        if found not in self.relationships:
            self.relationships.append(found)


def document(
    packed: Packed, image: Descriptor, base: Base | None, libraries: Sequence[Library], choices: Choices
) -> dict[str, Any]:
    """The bill of an image: the runner and its crates, plugins by their packages, the system's libraries, weights."""
    made = _Document()
    name = packed.contents.name
    digest = image["digest"].removeprefix("sha256:")
    url = f"pkg:oci/{name.lower()}@sha256%3A{digest}"
    checksums = [{"algorithm": "SHA256", "checksumValue": digest}]
    more: dict[str, Any] = {"checksums": checksums, "primaryPackagePurpose": "CONTAINER", "url": url}
    made.package(_IMAGE, name, version=choices.version, **more)
    made.relate("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE)
    known: dict[tuple[str, str], str] = {}
    for path, program in sorted(packed.runners.items()):
        _runner(made, path, crates(program), known)
    _compilers(made, packed)
    for platform, plugin in sorted(plugins(packed.contents).items()):
        _plugin(made, platform, plugin)
    for library in libraries:
        _library(made, library)
    _weights(made, packed)
    if base is not None:
        key = made.package("base", base.name or "base image", version=base.digest, primaryPackagePurpose="CONTAINER")
        made.relate(_IMAGE, "DESCENDANT_OF", key)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{digest}",
        "creationInfo": {
            "created": created() or _NO_TIME,
            "creators": [f"Tool: namedtensor-{namedtensor.__version__}"],
        },
        "packages": made.packages,
        "relationships": made.relationships,
    }


def _runner(made: _Document, path: str, listed: Sequence[Crate], known: dict[tuple[str, str], str]) -> None:
    root = next((crate for crate in listed if crate.root), None)
    runner = made.package(
        f"runner-{path}",
        path,
        version=root.version if root else None,
        license=_expression(root.license) if root else _NOTHING,
        primaryPackagePurpose="APPLICATION",
    )
    made.relate(_IMAGE, "CONTAINS", runner)
    keys = [runner if crate.root else _crate(made, crate, known) for crate in listed]
    for key, crate in zip(keys, listed, strict=True):
        for place in crate.depends:
            made.relate(key, "DEPENDS_ON", keys[place])


def _crate(made: _Document, crate: Crate, known: dict[tuple[str, str], str]) -> str:
    """A crate's package: the same for both runners."""
    of = (crate.name, crate.version)
    if of not in known:
        known[of] = made.package(
            f"crate-{crate.name}-{crate.version}",
            crate.name,
            version=crate.version,
            license=_expression(crate.license),
            primaryPackagePurpose="LIBRARY",
            url=f"pkg:cargo/{crate.name}@{crate.version}" if crate.registry else None,
        )
    return known[of]


def _expression(license: str | None) -> str:
    """A crate's license as an SPDX expression: crates of old have `MIT/Apache-2.0`."""
    return re.sub(r"\s*/\s*", " OR ", license) if license else _NOTHING


def _compilers(made: _Document, packed: Packed) -> None:
    releases = packed.contents.manifest.get("compiler")
    for package, release in sorted(releases.items()) if isinstance(releases, dict) else ():
        url = f"pkg:pypi/{package}@{release}"
        key = made.package(f"compiler-{package}", package, version=str(release), license="Apache-2.0", url=url)
        made.relate(key, "BUILD_TOOL_OF", _IMAGE)


def _plugin(made: _Document, platform: str, plugin: dict[str, Any]) -> None:
    releases = plugin.get("releases")
    for package, release in sorted(releases.items()) if isinstance(releases, dict) else ():
        url = f"pkg:pypi/{package}@{release}"
        key = made.package(f"plugin-{platform}-{package}", package, version=str(release), url=url)
        made.relate(_IMAGE, "CONTAINS" if plugin.get("library") else "DEPENDS_ON", key)


def _library(made: _Document, library: Library) -> None:
    package = library.package
    key = made.package(
        f"library-{library.name}",
        library.name,
        version=package.version if package else None,
        license=library.license,
        primaryPackagePurpose="LIBRARY",
        url=package.url if package else None,
        **({"sourceInfo": f"from the package {package.name} of the building machine"} if package else {}),
    )
    made.relate(_IMAGE, "CONTAINS", key)


def _weights(made: _Document, packed: Packed) -> None:
    weights = packed.contents.manifest["weights"]
    checksums = [{"algorithm": "SHA256", "checksumValue": weights["sha256"]}]
    key = made.package("weights", f"{packed.contents.name} weights", checksums=checksums, primaryPackagePurpose="FILE")
    made.relate(_IMAGE, "CONTAINS" if weights.get("file") else "DEPENDS_ON", key)
