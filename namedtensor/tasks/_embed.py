"""Texts in, vectors out, and which of them mean the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Encoding

from namedtensor._errors import CheckpointError, InputError, fail
from namedtensor._tensor import wrap
from namedtensor.tasks._batch import batches
from namedtensor.tasks._text import read_tokenizer

if TYPE_CHECKING:
    from namedtensor.lowering import Session

type Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Embed:
    """A program that turns texts into vectors; plain data.

    The entry point `entry` takes `ids` (b, s) int32, `mask` (b, s) bool, false where a row is padded, and
    `token_types` (b, s) int32, and returns a dict with `embedding` (b, d) float32. `tokenizer` is the path of a
    tokenizer.json; texts are put into lower case where `lower` says so, and cut to `max_length` tokens, special ones
    included. Ids lie below `vocab_size`, and `pad_id` is what stands where the mask is false.
    """

    tokenizer: str
    max_length: int
    vocab_size: int
    pad_id: int = 0
    lower: bool = False
    entry: str = "embed"

    def run(self, session: Session, texts: Sequence[str]) -> Embeddings:
        """Embed texts, together with others of about their length. Results are in the order given.

        Raises `InputError` where there are no texts, or one of them is empty or no text; `CheckpointError` where the
        tokenizer is damaged or belongs to another model.
        """
        if isinstance(texts, str):
            texts = [texts]
        if not texts:
            raise InputError("no text was given; give at least one")
        encoded = self.encode(texts)
        lengths = [session.bucket(self.entry, "s", len(encoding)) for encoding in encoded]
        order = sorted(range(len(texts)), key=lambda i: lengths[i])
        vectors: dict[int, Array] = {}
        for length, group in itertools.groupby(order, key=lambda i: lengths[i]):
            members = list(group)
            for first, last, size in batches(session, self.entry, "ids", len(members)):
                chosen = members[first:last]
                found = self._call(session, [encoded[i] for i in chosen], size, length)
                vectors.update(zip(chosen, found, strict=False))
        return Embeddings(
            tuple(texts),
            tuple(len(encoding) for encoding in encoded),
            tuple(bool(encoding.overflowing) for encoding in encoded),
            np.stack([vectors[i] for i in range(len(texts))]),
        )

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Token ids and types of texts, special tokens included, cut to the maximum length, not padded."""
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {place + 1} is not a text but {type(text).__name__}")
            if not text.strip():
                raise InputError(f"text {place + 1} is empty")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"text {place + 1} is not valid Unicode ({error.reason} at {error.start})") from None
        tokenizer = read_tokenizer(self.tokenizer, longest=self.max_length)
        encoded: list[Encoding] = tokenizer.encode_batch(
            [text.lower() for text in texts] if self.lower else list(texts)
        )
        highest = max((max(encoding.ids, default=0) for encoding in encoded), default=0)
        if highest >= self.vocab_size:
            fail(
                f"the tokenizer gives id {highest}, the model knows {self.vocab_size}",
                found={"tokenizer": self.tokenizer},
                fix="take the tokenizer.json that belongs to the weights",
                kind=CheckpointError,
            )
        return encoded

    def _call(self, session: Session, encoded: Sequence[Encoding], rows: int, length: int) -> Array:
        ids = np.full((rows, length), self.pad_id, np.int32)
        types = np.zeros((rows, length), np.int32)
        mask = np.zeros((rows, length), np.bool_)
        for row, encoding in enumerate(encoded):
            count = len(encoding)
            ids[row, :count], types[row, :count], mask[row, :count] = encoding.ids, encoding.type_ids, True
        found = session.call(self.entry, ids=wrap(ids, "b s"), mask=wrap(mask, "b s"), token_types=wrap(types, "b s"))
        vectors: Array = found["embedding"].numpy("b d")
        return vectors[: len(encoded)]

    def to_json(self) -> dict[str, Any]:
        """The declaration, for a machine."""
        return {"task": "embed", **asdict(self)}


@dataclass(frozen=True)
class Match:
    """One text that was compared: its place among those given, and the cosine of its angle to the query (-1 to 1)."""

    index: int
    text: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What `Embed.run` found for each text, in the order given.

    `tokens`: how many were read, special ones included; `truncated`: whether the text had more. `vectors`: (n, d).
    """

    texts: tuple[str, ...]
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    vectors: Array

    def similarity(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Cosines of the angles between all pairs of vectors, (n, n)."""
        unit = self._unit()
        return unit @ unit.T

    def ranking(self, query: int = 0) -> list[Match]:
        """The other texts, the one closest to the text at `query` first."""
        unit = self._unit()
        cosines = unit @ unit[query]
        order = np.argsort(-cosines, kind="stable")
        return [Match(int(i), self.texts[i], float(cosines[i])) for i in order if i != query]

    def _unit(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        wide = self.vectors.astype(np.float64)
        return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)

    def __str__(self) -> str:
        if len(self.texts) == 1:
            return " ".join(f"{value:.6f}" for value in self.vectors[0])
        return "\n".join(f"{match.similarity:.4f}  {match.text}" for match in self.ranking())

    def to_json(self) -> dict[str, Any]:
        """All numbers, for a machine: the vectors, and the other texts ranked against the first."""
        rows = zip(self.texts, self.tokens, self.truncated, self.vectors.tolist(), strict=True)
        keys = ("text", "tokens", "truncated", "embedding")
        return {
            "embeddings": [dict(zip(keys, row, strict=True)) for row in rows],
            "ranking": [asdict(match) for match in self.ranking()],
        }
