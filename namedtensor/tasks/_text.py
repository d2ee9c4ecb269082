"""Between ids and text: a tokenizer, text piece by piece, and the strings at which it stops."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from namedtensor._errors import CheckpointError

# The largest tokenizers of today, of 256,000 pieces, are 35 MB of JSON.
_LARGEST = 1 << 28
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


def read_tokenizer(path: str | Path, *, longest: int | None = None) -> Tokenizer:
    """The tokenizer in a tokenizer.json, without padding; texts are cut to `longest` ids, whatever the file says.

    Read once, as long as the file stays as it is. Raises `CheckpointError` where there is none.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path}: the tokenizer cannot be read ({error.strerror})") from None
    if status.st_size > _LARGEST:
        raise CheckpointError(f"{path}: {status.st_size:,} bytes are no tokenizer; at most {_LARGEST:,}")
    return _read(path, status.st_mtime_ns, status.st_size, longest)


@functools.lru_cache(maxsize=4)
def _read(path: Path, _changed: int, _size: int, longest: int | None) -> Tokenizer:
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        if longest is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(longest)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises plain Exception, and BaseException where its Rust code panics
        raise CheckpointError(f"{path}: not a tokenizer ({str(error).partition(chr(10))[0]})") from None
    return tokenizer


class TextStream:
    """Text of ids that come one after another, in pieces that put together are the text of them all.

    A piece never ends within a character: the ids of its first bytes wait for those of its last.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # The text of the ids in between is known already. They are decoded again with what follows, because some
        # tokenizers write an id's text differently at the start, without its space.
        self._anchor = 0
        self._known = 0

    def push(self, id: int) -> str:
        """The text that one more id completes; often empty."""
        self._ids.append(id)
        before, text = self._texts()
        if text.endswith(_INCOMPLETE):
            return ""
        return self._advance(before, text)

    def finish(self) -> str:
        """The text that is left when no more ids come. Bytes that are no character end as U+FFFD."""
        return self._advance(*self._texts())

    def _texts(self) -> tuple[str, str]:
        known = self._tokenizer.decode(self._ids[self._anchor : self._known], skip_special_tokens=True)
        return known, self._tokenizer.decode(self._ids[self._anchor :], skip_special_tokens=True)

    def _advance(self, before: str, text: str) -> str:
        if len(text) > len(before):
            self._anchor, self._known = self._known, len(self._ids)
            return text[len(before) :]
        return ""


class StopStrings:
    """Passes text on up to the first of some strings, holding back what may become one of them."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """What of the text so far can be shown. Sets `found` where a string is complete."""
        if self.found is not None:
            return ""
        self._held += text
        places = [(place, s) for s in self._strings if (place := self._held.find(s)) >= 0]
        if places:
            place, self.found = min(places, key=lambda item: (item[0], -len(item[1])))
            shown, self._held = self._held[:place], ""
            return shown
        cut = len(self._held) - self._undecided()
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        shown, self._held = self._held, ""
        return shown

    def _undecided(self) -> int:
        """Length of the longest end of the text that a string begins with."""
        longest = max((len(s) for s in self._strings), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(s.startswith(end) for s in self._strings):
                return length
        return 0
