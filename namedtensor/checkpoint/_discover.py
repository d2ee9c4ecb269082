"""From a source that a person wrote to the tensors it holds."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namedtensor.checkpoint import _gguf, _header, _json, _safetensors, _torch, _zip
from namedtensor.checkpoint._blob import Blob
from namedtensor.checkpoint._entry import Entry
from namedtensor.checkpoint._origin import Directory, Origin
from namedtensor.checkpoint._reject import quoted, reject

INDEX = ".index.json"
# What a directory is searched for, best first: whole names, then endings of which only one file may be there.
_KNOWN = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_ENDINGS = ((".safetensors", ".safetensors.index.json"), (".pt", ".pth", ".bin", ".bin.index.json"), (".gguf",))
# Files that training leaves beside the weights, in the weights' own formats.
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scheduler.bin", "rng_state.pth")
_MAX_SHARDS = 10_000
# Header reads of a sharded remote checkpoint that are under way at once.
_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that opening found."""

    source: str
    origin: Origin
    entries: Mapping[str, Entry]
    metadata: Mapping[str, Any]


def discover(source: str | Path) -> Contents:
    """Find the checkpoint at `source` and read its headers. Raises `CheckpointError`."""
    origin, file = _place(source)
    # What follows `?` in an address may be a signature that opens it: it is shown nowhere.
    name = str(source).partition("?")[0] if "://" in str(source) else str(source)
    if file is None:
        file = _choose(origin)
    blob = origin.find(file)
    if blob is None:
        reject(name, f"there is no file {quoted(file)}")
    if file.endswith(INDEX):
        entries, metadata = _sharded(origin, blob)
    elif blob.name.endswith(_header.HEADER):
        entries, metadata = _header.read(blob)
    else:
        entries, metadata = _single(blob)
    return Contents(name, origin, entries, metadata)


def _place(source: str | Path) -> tuple[Origin, str | None]:
    """The place that `source` names, and the file in it where it names one."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source) if isinstance(source, str) else None
    if scheme is not None and isinstance(source, str):
        # Imported only here: most checkpoints are local, and neither library is small.
        if scheme[1] == "hf":
            from namedtensor.checkpoint._hub import open_hub

            return open_hub(source)
        if scheme[1] in ("https", "http", "s3", "gs"):
            from namedtensor.checkpoint._remote import open_remote

            return open_remote(source)
        reject(source, f"cannot be opened by {scheme[1]}://", "use a path, hf://, https://, s3:// or gs://")
    if not str(source):
        reject("checkpoint", "the source is empty", "name a file, a directory or an address")
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return Directory(path), None
        if not path.exists():
            reject(str(source), "no such file or directory")
    except (OSError, RuntimeError) as error:
        reject(str(source), getattr(error, "strerror", None) or str(error))
    return Directory(path.parent), path.name


def _choose(origin: Origin) -> str:
    """The one checkpoint among the files of a place."""
    files = origin.list()
    if files is None:
        found = next((name for name in _KNOWN if origin.find(name) is not None), None)
        if found is None:
            reject(origin.name, f"holds none of {', '.join(_KNOWN)}", "name the file itself")
        return found
    for name in _KNOWN[:2]:
        if name in files:
            return name
    for endings in _ENDINGS:
        if endings is _ENDINGS[1]:
            for name in _KNOWN[2:]:
                if name in files:
                    return name
        fitting = [name for name in files if name.endswith(endings) and name not in _NOT_WEIGHTS]
        # The shards of an index are no candidates beside it.
        indexes = [name for name in fitting if name.endswith(INDEX)]
        fitting = indexes or fitting
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            shown = ", ".join(fitting[:4]) + (", ..." if len(fitting) > 4 else "")
            reject(origin.name, f"holds {len(fitting)} checkpoints: {shown}", "name the one you mean")
    if _header.HEADER in files:
        return _header.HEADER
    return reject(origin.name, "holds no checkpoint", "a safetensors, .pt, .pth, .bin or .gguf file is needed")


def _single(blob: Blob) -> tuple[dict[str, Entry], Mapping[str, Any]]:
    """Tensors and metadata of one file, whose first bytes tell its format rather than its name."""
    head = blob.read(0, min(blob.size, 512))
    if head.startswith(_zip.MAGIC):
        return _torch.read(blob)
    if head.startswith(_gguf.MAGIC):
        return _gguf.read(blob)
    if head.startswith(_torch.LEGACY_MAGIC) or head[257:262] == b"ustar":
        reject(blob.name, "was saved by a PyTorch before 1.6", "load it with PyTorch and save it again")
    if head[8:9] == b"{" or blob.name.endswith(".safetensors"):
        return _safetensors.read(blob)
    return reject(
        blob.name, "is none of safetensors, PyTorch zip checkpoint and GGUF", "or it is damaged at its beginning"
    )


def _sharded(origin: Origin, index: Blob) -> tuple[dict[str, Entry], Mapping[str, Any]]:
    """Tensors of every shard that the index names; each must be in the shard where the index says it is."""
    content = _json.read(index)
    shard_of = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        reject(index.name, 'is not an index: it needs "weight_map", an object from tensor names to file names')
    shards = sorted(set(shard_of.values()))
    if len(shards) > _MAX_SHARDS:
        reject(index.name, f"names {len(shards):,} shards, more than {_MAX_SHARDS:,}")
    for shard in shards:
        if "/" in shard or "\\" in shard or shard in (".", "..") or "\0" in shard or not shard:
            reject(index.name, f"names the shard {quoted(shard)}, which is not a file beside the index")

    def open_shard(shard: str) -> Mapping[str, Entry]:
        blob = origin.find(shard)
        if blob is None:
            reject(index.name, f"names the shard {quoted(shard)}, which is not there", "download all of the checkpoint")
        return _single(blob)[0]

    with ThreadPoolExecutor(_PARALLEL) as pool:
        found = dict(zip(shards, pool.map(open_shard, shards), strict=True))
    entries = {}
    for name, shard in shard_of.items():
        if name not in found[shard]:
            reject(index.name, f"says that {quoted(name)} is in {quoted(shard)}, which does not hold it")
        entries[name] = found[shard][name]
    metadata = content.get("metadata", {})
    return entries, metadata if isinstance(metadata, dict) else {}
