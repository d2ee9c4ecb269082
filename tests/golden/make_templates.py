"""Write tests/golden/templates/reference.json: what transformers makes of the chat templates beside it.

    *.jinja          chat templates in the manner of Llama 2 and 3, Mistral, Qwen 2 and 3, Gemma, Zephyr and DeepSeek,
                     and macros.jinja, which uses what else of Jinja and Python they rely on; written for these tests
    reference.json   `tokens`: the special tokens; `conversations`: messages by name; `cases`: template, name of the
                     conversation, whether a generation prompt is added, and `text`, or `error`: the template's refusal

Usage: python tests/golden/make_templates.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = Path(__file__).parent / "templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def said(*turns: str) -> list[dict[str, str]]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


CONVERSATIONS = {
    "question": said("u:What is the capital of France?"),
    "system": said("s:  You answer in one short sentence.\n", "u: How many legs do three spiders have? "),
    "turns": said("u:Say it in German.", "a: Der Fluss ist breit. \n", "u:\n\nUnd über Köln? 日本語 🙂\n"),
    "all": said("s:Be brief.", "u:double(21)", "a:The answer is 42.", "u:And 'quoted' \"twice\"?", "a:84 <b>\\n</b>"),
    "thought": said(
        "u:Why?", "a:<think>\nLet me see.\n</think>\n\nBecause.", "u:Sure?", "a:<think>\nHm.\n</think>\nYes."
    ),
    "answer first": said("a:I go first."),
    "twice": said("u:One.", "u:Two."),
    "empty": said("s:", "u:"),
    "line breaks": said("u:a\r\nb\tc\u00a0d\u2028e\x0bf"),
}


def case(template: str, source: str, name: str, prompt: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"template": template, "conversation": name, "add_generation_prompt": prompt}
    try:
        texts, _ = render_jinja_template(
            [CONVERSATIONS[name]], chat_template=source, add_generation_prompt=prompt, **TOKENS
        )
    except jinja2.exceptions.TemplateError as error:
        return {**found, "error": str(error)}
    return {**found, "text": texts[0]}


def main() -> None:
    templates = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.jinja"))}
    cases = [
        case(template, source, name, prompt)
        for template, source in templates.items()
        for name in CONVERSATIONS
        for prompt in (True, False)
    ]
    reference = {"tokens": TOKENS, "conversations": CONVERSATIONS, "cases": cases}
    (FOLDER / "reference.json").write_text(json.dumps(reference, ensure_ascii=False, indent=1) + "\n")
    print(f"{len(cases)} cases, of which {sum('error' in case for case in cases)} are refused")


if __name__ == "__main__":
    main()
