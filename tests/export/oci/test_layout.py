"""Layouts: what is written is read again from a directory and a tar; what is damaged is refused in one line."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from namedtensor import InputError
from namedtensor.export.oci import Layout, _media
from namedtensor.export.oci._layout import encode, writing

OUTPUTS = ["layout", "layout.tar"]


def written(output: Path, tag: str = "latest", content: bytes = b"a layer") -> Path:
    with writing(output) as layout:
        config = layout.add(encode({}), _media.CONFIG)
        layer = layout.add(content, _media.LAYER)
        manifest = {"schemaVersion": 2, "mediaType": _media.MANIFEST, "config": config, "layers": [layer]}
        image = layout.add(encode(manifest), _media.MANIFEST)
        layout.finish([{**image, "annotations": {_media.REF_NAME: tag}}])
    return output


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_was_written_is_read_again(tmp_path: Path, name: str) -> None:
    with Layout(written(tmp_path / name)) as layout:
        image = layout.image("latest")
        assert layout.image() == image
        (layer,) = layout.layers(layout.manifest(image))
        assert layout.read(layer) == b"a layer"
        assert layout.size(layer["digest"]) == 7
        with layout.stream(layer["digest"]) as stream:
            assert stream.seek(2) == 2
            assert (stream.read(3), stream.read(), stream.read()) == (b"lay", b"er", b"")


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_same_content_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    first, second = (written(tmp_path / directory / name) for directory in map(made(tmp_path), "ab"))
    files = sorted(path.relative_to(first) for path in [first, *first.rglob("*")])
    assert files == sorted(path.relative_to(second) for path in [second, *second.rglob("*")])
    assert all(
        (first / file).read_bytes() == (second / file).read_bytes() for file in files if (first / file).is_file()
    )


def made(directory: Path) -> Any:
    return lambda name: (directory / name).mkdir() or name


def half_written(output: Path) -> None:
    with writing(output) as layout:
        layout.add(b"half", _media.LAYER)
        raise KeyError


def test_what_failed_leaves_nothing(tmp_path: Path) -> None:
    for name in OUTPUTS:
        with pytest.raises(KeyError):
            half_written(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_layout_takes_the_place_of_another(tmp_path: Path, name: str) -> None:
    written(tmp_path / name, "old")
    written(tmp_path / name, "new", b"another")
    with Layout(tmp_path / name) as layout:
        layout.image("new")
        with pytest.raises(InputError, match="0 images tagged 'old'; tags: new"):
            layout.image("old")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_else_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("one")
    with pytest.raises(InputError, match="something other than an OCI image layout"), writing(tmp_path / "thesis"):
        pytest.fail("nothing may be done before")
    assert (tmp_path / "thesis" / "chapter").read_text() == "one"


def read_whole(path: Path) -> None:
    with Layout(path) as layout:
        layout.read(layout.image())
        for layer in layout.layers(layout.manifest(layout.image())):
            layout.read(layer)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_whole(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"{", "not JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (1 << 23), "larger than"),
        (b"{}", "manifests is no list"),
        (encode({"manifests": [3]}), "describes no blob"),
        (encode({"manifests": [{"digest": "sha256:" + "0" * 64, "size": -1}]}), "describes no blob"),
        (encode({"manifests": [{"digest": "sha256:../../../etc/passwd", "size": 1}]}), "describes no blob"),
        (encode({"manifests": []}), "0 images"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, index: bytes, problem: str) -> None:
    root = written(tmp_path / "layout")
    (root / "index.json").write_bytes(index)
    assert problem in refused(root)


def test_blobs_are_held_against_their_digests(tmp_path: Path) -> None:
    root = written(tmp_path / "layout")
    with Layout(root) as layout:
        (layer,) = layout.layers(layout.manifest(layout.image()))
    blob = root / "blobs" / "sha256" / layer["digest"][7:]
    blob.write_bytes(b"b layer")
    assert "is damaged" in refused(root)
    blob.write_bytes(b"a layer and more")
    assert "is damaged" in refused(root)
    blob.unlink()
    assert "No such file" in refused(root)


def test_what_is_no_layout_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "missing")
    assert "oci-layout" in refused(tmp_path)
    (tmp_path / "text.tar").write_text("no tar")
    assert "neither a directory nor a tar" in refused(tmp_path / "text.tar")
    packed = written(tmp_path / "a.tar")
    packed.write_bytes(packed.read_bytes()[:3000])
    assert "\n" not in refused(packed)


def test_only_plain_files_of_a_tar_are_seen(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        mark = tarfile.TarInfo("oci-layout")
        mark.size = len(text := json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        tar.addfile(mark, io.BytesIO(text))
        link = tarfile.TarInfo("index.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "index.json is missing" in refused(tmp_path / "a.tar")
