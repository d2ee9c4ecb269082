"""Chat templates: messages to the text of a prompt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from namedtensor._errors import CheckpointError, InputError, ModelError, describe

if TYPE_CHECKING:
    from namedtensor.checkpoint import Checkpoint

# Seconds to wait for a rendering. Its own limit is on computing; this one also ends one that only sleeps.
_PATIENCE = 20
_LARGEST = 1 << 20
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template as checkpoints bring it, and the special tokens that it may mention, such as `bos_token`."""

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, ckpt: Checkpoint) -> ChatTemplate | None:
        """The template beside a checkpoint's weights, in `chat_template.jinja` or `tokenizer_config.json`, or None."""
        config: Any = ckpt.json("tokenizer_config.json") if ckpt.has_file("tokenizer_config.json") else {}
        if not isinstance(config, Mapping):
            raise CheckpointError("tokenizer_config.json does not hold an object")
        if ckpt.has_file("chat_template.jinja"):
            path = ckpt.file("chat_template.jinja")
            if path.stat().st_size > _LARGEST:
                raise CheckpointError(f"chat_template.jinja is larger than {_LARGEST >> 20} MB")
            source: Any = path.read_text(encoding="utf-8", errors="replace")
        else:
            source = config.get("chat_template")
        if isinstance(source, list):  # several by name, of which "default" is for plain conversations
            source = next(
                (t.get("template") for t in source if isinstance(t, Mapping) and t.get("name") == "default"), None
            )
        if source is None:
            return None
        if not isinstance(source, str) or len(source) > _LARGEST:
            raise CheckpointError("tokenizer_config.json: chat_template is not the text of a template")
        older: Any = ckpt.json("special_tokens_map.json") if ckpt.has_file("special_tokens_map.json") else {}
        stored = {**(older if isinstance(older, Mapping) else {}), **config}
        tokens = {}
        for name in _SPECIAL:
            token = stored.get(name)
            token = token.get("content") if isinstance(token, Mapping) else token
            if isinstance(token, str):
                tokens[name] = token
        return cls(source, tokens)

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The conversation as one text, special tokens included: to be tokenized without adding any.

        Each message has a `role` ("system", "user", "assistant", ...) and a `content`. `add_generation_prompt` ends
        the text where the assistant is to go on.

        The template runs in a sandbox in a process of its own with little memory and time, and without files. Raises
        `InputError` with the template's own words where it refuses the messages, or fails.
        """
        values = {
            **self.tokens,
            "messages": _checked(messages),
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
        }
        paths = [str(Path(module.__file__).parents[1]) for module in (jinja2, sys.modules["markupsafe"])]  # type: ignore[arg-type]
        try:
            ended = subprocess.run(
                [sys.executable, "-I", str(Path(__file__).with_name("_render.py")), *paths],
                input=json.dumps({"template": self.source, "values": values}),
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=_PATIENCE,
                env={},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"the chat template did not end within {_PATIENCE} seconds") from None
        except OSError as error:
            raise ModelError(f"the chat template could not be run: {error}") from error
        if ended.returncode or not ended.stdout:
            raise InputError(f"the chat template used up its time or memory (exit status {ended.returncode})")
        answer = json.loads(ended.stdout)
        if "problem" in answer:
            raise InputError(f"the chat template refuses the messages: {answer['problem']}")
        return str(answer["text"])


def _checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as plain data."""
    if isinstance(messages, (str, Mapping)) or not messages:
        raise InputError('messages must be a list of at least one message: [{"role": "user", "content": "..."}]')
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise InputError(f"message {i} needs a role, a string, and a content; it is {describe(message)}")
    try:
        plain: list[dict[str, Any]] = json.loads(json.dumps([dict(message) for message in messages]))
    except (TypeError, ValueError) as error:
        raise InputError(f"messages must be plain data: {error}") from None
    return plain
