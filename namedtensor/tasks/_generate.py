"""A prompt in, text out, piece by piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from namedtensor._errors import CheckpointError, InputError, ModelError
from namedtensor._tensor import Tensor, wrap
from namedtensor.tasks._sampling import Sampling
from namedtensor.tasks._template import ChatTemplate
from namedtensor.tasks._text import StopStrings, TextStream, read_tokenizer

if TYPE_CHECKING:
    from namedtensor.checkpoint import Checkpoint
    from namedtensor.lowering import Program, Session

type Ids = Sequence[int]
type FinishReason = Literal["eos", "stop", "length", "context"]


@dataclass(frozen=True)
class Generate:
    """A program that continues a prompt; plain data.

    The program has four entry points over one sequence, b = 1, and a cache in any tree:

    - `prefill(tokens (b s) int32, start (b) int32, length (b) int32, cache) -> {logits (b vocab) float32, cache}`, with
      buckets over `s`; the first `length` tokens count, and `start` is always a multiple of the largest bucket;
    - `decode(token (b) int32, position (b) int32, cache) -> {logits, cache}`;
    - `score(tokens, start, cache) -> {logits (b s vocab) float32, cache}`;
    - `sample(logits, seen (b vocab) bool, seed () uint32, step () int32, settings) -> {token (b) int32, seen}`.

    `context` is the most positions of prompt and answer together, `vocab` the number of ids, `eos` the ids at which an
    answer ends. `tokenizer` is the path of a tokenizer.json; without one, prompts are ids. `sampling` is what applies
    where the caller sets nothing else.
    """

    context: int
    vocab: int
    eos: tuple[int, ...] = ()
    tokenizer: str | None = None
    template: ChatTemplate | None = None
    sampling: Sampling = field(default_factory=Sampling)

    @classmethod
    def of(cls, ckpt: Checkpoint, *, context: int, vocab: int) -> Generate:
        """The task that the files beside a checkpoint's weights describe, as transformers writes them.

        Raises `CheckpointError` where one of them is damaged, `ModelError` where it asks for what is not implemented.
        """
        config, generation = (_object(ckpt, file) for file in ("config.json", "generation_config.json"))
        return cls(
            context=context,
            vocab=vocab,
            eos=_eos(generation.get("eos_token_id", config.get("eos_token_id")), vocab),
            tokenizer=str(ckpt.file("tokenizer.json")) if ckpt.has_file("tokenizer.json") else None,
            template=ChatTemplate.find(ckpt),
            sampling=Sampling.of(generation),
        )

    def run(
        self,
        session: Session,
        prompt: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        prompt_ids: Ids | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        on_text: Callable[[str], None] | None = None,
        **settings: float,
    ) -> Generation:
        """Continue one of a text `prompt`, a conversation `messages`, or `prompt_ids`.

        - `max_tokens`: the longest answer, by default as long as the context allows.
        - `seed`: from 0 to 2**32 - 1; one seed gives one answer.
        - `stop`: strings at which the answer ends, without them.
        - `on_text`: called with every piece of text as it becomes known. A piece ends between characters.
        - `settings`: temperature, top_k, top_p, min_p, repetition_penalty; those of `sampling` by default.

        Raises `InputError` where the prompt is empty, too long for the context, or a setting is out of range.
        """
        pieces = self.stream(
            session,
            prompt,
            messages=messages,
            prompt_ids=prompt_ids,
            max_tokens=max_tokens,
            seed=seed,
            stop=stop,
            **settings,
        )
        for piece in pieces:
            if on_text is not None:
                on_text(piece)
        return pieces.generation

    def stream(
        self,
        session: Session,
        prompt: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        prompt_ids: Ids | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        **settings: float,
    ) -> Stream:
        """The same as an iterator of text pieces. Everything is checked before the first piece is asked for."""
        ids = self.ids(prompt, messages=messages, prompt_ids=prompt_ids)
        if max_tokens is not None and (
            isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1
        ):
            raise InputError(f"max_tokens must be a whole number from 1, not {max_tokens!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 32:
            raise InputError(f"seed must be a whole number from 0 to 2**32 - 1, not {seed!r}")
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if any(not isinstance(s, str) or not s for s in stop):
            raise InputError(f"stop strings must be strings of at least one character, not {stop!r}")
        if stop and self.tokenizer is None:
            raise InputError("stop strings need a tokenizer, and the checkpoint has none")
        return Stream(self, session, ids, max_tokens, seed, stop, self.sampling.replace(**settings))

    def score(self, session: Session, prompt_ids: Ids) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (s, vocab) after each token of a prompt."""
        ids = self.ids(prompt_ids=prompt_ids)
        spec = session.program.entries["score"].inputs
        size, cache, rows = spec["tokens"].size("s"), self._cache(session, "score"), []
        for start in range(0, len(ids), size):
            piece = ids[start : start + size]
            outputs = session.call("score", tokens=_tokens(piece, size), start=_row(start), cache=cache)
            cache = outputs["cache"]
            rows.append(outputs["logits"].index("b", 0).numpy("s vocab")[: len(piece)])
        return np.concatenate(rows)

    def ids(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        prompt_ids: Ids | None = None,
    ) -> list[int]:
        """The prompt's tokens: of a text with the tokenizer's special tokens, of messages as the template puts them.

        Raises `InputError` where not exactly one is given, or it has no tokens, ids out of range, or more tokens than
        the context holds beside one of answer.
        """
        sources = {"prompt": prompt, "messages": messages, "ids": prompt_ids}
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            both = f", not both {' and '.join(given)}" if given else ": a text, messages, or ids"
            raise InputError(f"one prompt is needed{both}")
        if prompt_ids is not None:
            ids = [int(i) if isinstance(i, (int, np.integer)) and not isinstance(i, bool) else -1 for i in prompt_ids]
        else:
            ids = self._encode(prompt, messages)
        if not ids:
            raise InputError("the prompt is empty: there is no token to continue from")
        wrong = next((i for i, id in enumerate(ids) if not 0 <= id < self.vocab), None)
        if wrong is not None:
            shown = ids[wrong] if prompt_ids is None else prompt_ids[wrong]
            raise InputError(f"token {wrong} of the prompt is {shown!r}; ids go from 0 to {self.vocab - 1}")
        if len(ids) >= self.context:
            raise InputError(
                f"the prompt has {len(ids)} tokens, and the context of {self.context} has room for {self.context - 1} "
                "and an answer; shorten it, or build the program with a larger context"
            )
        return ids

    def variants(self, program: Program, ids: Ids) -> tuple[str, ...]:
        """Names of what continuing a prompt needs compiled: `program.start(only=task.variants(program, ids))`."""
        sizes = program.entries["prefill"].buckets["s"]
        whole, rest = divmod(len(ids), max(sizes))
        used = {max(sizes)} if whole else set()
        if rest:
            used.add(min(size for size in sizes if size >= rest))
        return (*(f"prefill.s{size}" for size in sorted(used)), "decode", "sample")

    def _encode(self, prompt: str | None, messages: Sequence[Mapping[str, Any]] | None) -> list[int]:
        if self.tokenizer is None:
            raise InputError("the checkpoint has no tokenizer.json, so the prompt must be ids")
        if messages is not None:
            if self.template is None:
                raise InputError("the checkpoint has no chat template, so the prompt must be a text or ids")
            prompt = self.template.render(messages)
        if not isinstance(prompt, str):
            raise InputError(f"the prompt must be a text, not {type(prompt).__name__}")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the prompt is not valid Unicode: {error.reason} at {error.start}") from None
        # What the template wrote already has the special tokens.
        encoding = read_tokenizer(self.tokenizer).encode(prompt, add_special_tokens=messages is None)
        return [int(id) for id in encoding.ids]

    def _cache(self, session: Session, entry: str) -> Any:
        """An empty cache, a buffer of its own for each of its tensors."""
        device = session.executable.device
        return jax.tree.map(
            lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype, device=device),
            session.program.entries[entry].inputs["cache"],
        )

    def to_json(self) -> dict[str, Any]:
        """The declaration, for a machine."""
        return {"task": "generate", **asdict(self)}


@dataclass(frozen=True)
class Generation:
    """An answer. `text` is None where there is no tokenizer.

    `ids` are its tokens, with the one that ended it. `finish_reason` is "eos" (an id that ends answers), "stop" (a stop
    string), "length" (`max_tokens`) or "context" (no room left). Times are in seconds; `first_token_seconds` are those
    of the prompt and the first token.
    """

    ids: tuple[int, ...]
    text: str | None
    finish_reason: FinishReason
    prompt_ids: tuple[int, ...]
    seed: int
    sampling: Sampling
    first_token_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """Rate of the tokens after the first one; None where there are none."""
        after = self.seconds - self.first_token_seconds
        return (len(self.ids) - 1) / after if len(self.ids) > 1 and after > 0 else None

    def to_json(self) -> dict[str, Any]:
        """All numbers, for a machine."""
        return {
            "text": self.text,
            "ids": list(self.ids),
            "finish_reason": self.finish_reason,
            "prompt_tokens": len(self.prompt_ids),
            "prompt_ids": list(self.prompt_ids),
            "answer_tokens": len(self.ids),
            "seed": self.seed,
            "sampling": asdict(self.sampling),
            "first_token_seconds": self.first_token_seconds,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
        }


class Stream(Iterator[str]):
    """Pieces of an answer's text as they become known, none without a tokenizer. Made by `Generate.stream`."""

    def __init__(
        self,
        task: Generate,
        session: Session,
        ids: list[int],
        max_tokens: int | None,
        seed: int,
        stop: tuple[str, ...],
        sampling: Sampling,
    ) -> None:
        self._task, self._session, self._prompt = task, session, ids
        self._seed, self._sampling = seed, sampling
        room = task.context - len(ids)
        self._most = room if max_tokens is None else min(max_tokens, room)
        self._reason: FinishReason = "context" if self._most == room and max_tokens != room else "length"
        self._stops = StopStrings(stop)
        self._ids: list[int] = []
        self._text: list[str] | None = None if task.tokenizer is None else []
        self._generation: Generation | None = None
        self._pieces = self._run()

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def generation(self) -> Generation:
        """The whole answer. Raises `InputError` before the iterator is exhausted."""
        if self._generation is None:
            raise InputError("the answer is not complete; iterate to the end first")
        return self._generation

    def _run(self) -> Iterator[str]:
        began = time.perf_counter()
        first = 0.0
        text = None if self._task.tokenizer is None else TextStream(read_tokenizer(self._task.tokenizer))
        for id in self._tokens():
            first = first or time.perf_counter() - began
            self._ids.append(id)
            if id in self._task.eos:
                self._reason = "eos"
                break
            if text is not None:
                yield from self._show(self._stops.push(text.push(id)))
                if self._stops.found is not None:
                    self._reason = "stop"
                    break
        if text is not None and self._stops.found is None:
            # The last id may have begun a character that no other completes, and that text a stop string.
            yield from self._show(self._stops.push(text.finish()))
            yield from self._show(self._stops.finish())
            if self._stops.found is not None and self._reason != "eos":
                self._reason = "stop"
        self._generation = Generation(
            ids=tuple(self._ids),
            text=None if self._text is None else "".join(self._text),
            finish_reason=self._reason,
            prompt_ids=tuple(self._prompt),
            seed=self._seed,
            sampling=self._sampling,
            first_token_seconds=first,
            seconds=time.perf_counter() - began,
        )

    def _show(self, text: str) -> Iterator[str]:
        if text and self._text is not None:
            self._text.append(text)
            yield text

    def _tokens(self) -> Iterator[int]:
        """Tokens of the answer, as many as there may be."""
        session, task, prompt = self._session, self._task, self._prompt
        largest = max(session.program.entries["prefill"].buckets["s"])
        cache, logits = task._cache(session, "prefill"), None
        for start in range(0, len(prompt), largest):
            piece = prompt[start : start + largest]
            outputs = session.call(
                "prefill",
                tokens=_tokens(piece, session.bucket("prefill", "s", len(piece))),
                start=_row(start),
                length=_row(len(piece)),
                cache=cache,
            )
            cache, logits = outputs["cache"], outputs["logits"]
        seen = np.zeros((1, task.vocab), np.bool_)
        seen[0, prompt] = True
        marked = wrap(seen, "b vocab")
        for step in range(self._most):
            sampled = session.call(
                "sample", logits=logits, seen=marked, seed=self._seed, step=step, **self._sampling.settings()
            )
            marked = sampled["seen"]
            yield int(sampled["token"].index("b", 0).item())
            if step + 1 < self._most:
                outputs = session.call("decode", token=sampled["token"], position=_row(len(prompt) + step), cache=cache)
                cache, logits = outputs["cache"], outputs["logits"]


def _tokens(ids: Ids, size: int) -> Tensor:
    padded = np.zeros((1, size), np.int32)
    padded[0, : len(ids)] = ids
    return wrap(padded, "b s")


def _row(value: int) -> Tensor:
    return wrap(np.array([value], np.int32), "b")


def _object(ckpt: Checkpoint, file: str) -> Mapping[str, Any]:
    value: Any = ckpt.json(file) if ckpt.has_file(file) else {}
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{file} does not hold an object")
    return value


def _eos(value: Any, vocab: int) -> tuple[int, ...]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    for id in ids:
        if isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < vocab:
            raise ModelError(f"eos_token_id must be ids from 0 to {vocab - 1}, not {id!r}")
    return tuple(ids)
