"""An archive unpacked, every file held against its digest: what `tar -xf` does, for who would trust no tar."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from namedtensor.export.archive._compress import MANIFEST, runs
from namedtensor.export.archive._read import opened


def unpack(path: Path, directory: Path) -> Path:
    """Unpack into `directory`, under the archive's own name, which must not be there yet.

    Returns: the program to run. Raises `InputError` where the archive is damaged, `FileExistsError` where something of
    its name is there. It appears when it is complete.
    """
    with opened(path) as archive, tempfile.TemporaryDirectory(prefix=".unpack.", dir=directory) as temporary:
        name = archive.contents.name
        root = Path(temporary) / name
        root.mkdir()
        (root / MANIFEST).write_bytes(archive.text)
        for member, blocks in archive.members():
            place = root / member.path
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place, "xb") as file:
                for block in blocks:
                    file.write(block)
            place.chmod(0o755 if runs(member.path, name) else 0o644)
        if os.path.lexists(directory / name):
            raise FileExistsError(0, "there is something already", str(directory / name))
        os.rename(root, directory / name)
    return directory / name / name
