"""Checkpoints on the Hugging Face hub, through huggingface_hub: its addresses, its credentials, its cache."""

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.utils import build_hf_headers, tqdm  # type: ignore[attr-defined]

from namedtensor.checkpoint._blob import Blob, Cancelled, LocalFile
from namedtensor.checkpoint._origin import Directory, Origin
from namedtensor.checkpoint._reject import reject

_ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.*))?")


@dataclass(frozen=True, slots=True)
class HubFile(Blob):
    """A file of a repository at one commit, which is why it never changes."""

    repo: str
    file: str
    revision: str | None
    commit: str
    url: str
    size: int

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"hf://{self.repo}/{self.file}"

    def read(self, offset: int, length: int) -> bytes:
        if not length:
            return b""
        cached = self._cached
        if cached is not None:
            return cached.read(offset, length)
        span = f"bytes={offset}-{offset + length - 1}"
        headers = {**build_hf_headers(), "Range": span, "Accept-Encoding": "identity"}
        data = bytearray()
        try:
            with huggingface_hub.get_session().stream(
                "GET", self.url, headers=headers, follow_redirects=True
            ) as response:
                # Anything else would be the whole file, or a page that says what is wrong.
                if response.status_code == 206:
                    for part in response.iter_raw():
                        data += part
                        if len(data) > length:
                            break
                status = response.status_code
        except Exception as error:
            reject(self.name, _reason(error))
        if status != 206 or len(data) != length:
            reject(self.name, f"the hub sent {len(data):,} bytes of {length:,} (status {status})", "try again")
        return bytes(data)

    @property
    def _cached(self) -> LocalFile | None:
        found = huggingface_hub.try_to_load_from_cache(self.repo, self.file, revision=self.commit)
        return LocalFile.open(Path(found)) if isinstance(found, str) else None

    def local(
        self, advance: Callable[[int], None] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> LocalFile:
        cached = self._cached
        if cached is not None:
            return cached
        fetched = 0

        class Meter(tqdm):
            """Where the hub's downloads report: it draws nothing, counts, and stops them."""

            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options | {"disable": True})

            def update(self, count: float | None = 1) -> None:
                nonlocal fetched
                if cancelled is not None and cancelled():
                    raise Cancelled
                if advance is not None and count:
                    fetched += int(count)
                    advance(int(count))

        def download(revision: str | None) -> Path:
            return Path(huggingface_hub.hf_hub_download(self.repo, self.file, revision=revision, tqdm_class=Meter))

        try:
            # By the name that was asked for, which the cache then remembers for when there is no connection.
            path = download(self.revision)
            if self.commit not in path.parts:
                path = download(self.commit)  # the name has moved on since the header was read
        except Exception as error:
            if cancelled is not None and cancelled():
                raise Cancelled from error
            reject(self.name, _reason(error))
        if advance is not None:
            advance(self.size - fetched)  # of a download that was resumed or repeated
        return LocalFile.open(path)

    @property
    def to_fetch(self) -> int:
        return 0 if self._cached else self.size


class Repository(Origin):
    """A model repository at one commit."""

    def __init__(self, repo: str, revision: str | None, commit: str, files: list[str]) -> None:
        self.repo = repo
        self.revision = revision
        self.commit = commit
        self.files = frozenset(files)
        self.name = f"hf://{repo}@{commit[:12]}"

    def _find(self, file: str) -> Blob | None:
        if file not in self.files:
            return None
        url = huggingface_hub.hf_hub_url(self.repo, file, revision=self.commit)
        try:
            found = huggingface_hub.get_hf_file_metadata(url)
        except Exception as error:
            reject(f"hf://{self.repo}/{file}", _reason(error))
        if found.size is None:
            reject(f"hf://{self.repo}/{file}", "the hub does not tell its size", "try again")
        return HubFile(self.repo, file, self.revision, self.commit, url, found.size)

    def list(self) -> list[str] | None:
        return sorted(file for file in self.files if "/" not in file)


def open_hub(address: str) -> tuple[Origin, str | None]:
    """The repository and file that `hf://org/repo[@revision][/file]` names.

    The revision is pinned to a commit here, so that all files are of one. Without a connection, what the cache holds
    of the revision is used. Raises `CheckpointError`.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        reject(address, "is not an address on the hub", "write hf://org/repo, hf://org/repo@revision or with /file")
    repo, file = match["repo"], (match["file"] or "").rstrip("/")
    revision = urllib.parse.unquote(match["revision"]) if match["revision"] else None
    try:
        found: Any = huggingface_hub.HfApi().model_info(repo, revision=revision)
    except (errors.HfHubHTTPError, ValueError) as error:
        reject(address, _reason(error))
    except Exception as error:
        return _offline(address, repo, revision, error), file or None
    origin = Repository(repo, revision, found.sha, [sibling.rfilename for sibling in found.siblings or []])
    return origin, file or None


def _offline(address: str, repo: str, revision: str | None, problem: Exception) -> Origin:
    try:
        return Directory(Path(huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True)))
    except Exception:
        reject(address, f"the hub cannot be reached ({_reason(problem)}), and the cache does not hold it")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
