"""Chat templates: what transformers makes of them, and what hostile ones can not do."""

import json
import shutil
from pathlib import Path

import pytest

import namedtensor as nt
from namedtensor.tasks import ChatTemplate

CHAT = Path(__file__).parents[1] / "golden" / "llama" / "chat"
REFERENCE = json.loads((CHAT / "reference.json").read_text())
TEMPLATES = CHAT.parents[1] / "templates"
DIALECTS = json.loads((TEMPLATES / "reference.json").read_text())
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def template():
    return ChatTemplate.find(nt.Checkpoint.open(CHAT))


@pytest.mark.parametrize("case", REFERENCE["conversations"])
def test_text_equals_transformers(template, case):
    found = template.render(case["messages"], add_generation_prompt=case["add_generation_prompt"])
    assert found == case["text"]


@pytest.mark.parametrize("name", sorted(path.name for path in TEMPLATES.glob("*.jinja")))
def test_templates_of_every_manner_give_what_transformers_makes_of_them(name):
    template = ChatTemplate((TEMPLATES / name).read_text(), DIALECTS["tokens"])
    # Each takes a process: a third of them is enough to tell that they are read alike.
    cases = [case for case in DIALECTS["cases"] if case["template"] == name]
    assert cases
    for case in cases[::3]:
        messages = DIALECTS["conversations"][case["conversation"]]
        if "text" in case:
            found = template.render(messages, add_generation_prompt=case["add_generation_prompt"])
            assert found == case["text"], case["conversation"]
        else:
            with pytest.raises(nt.InputError) as caught:
                template.render(messages, add_generation_prompt=case["add_generation_prompt"])
            assert caught.value.headline.endswith(case["error"])


@pytest.mark.parametrize("case", REFERENCE["errors"])
def test_a_refusal_is_in_the_templates_own_words(template, case):
    with pytest.raises(nt.InputError) as caught:
        template.render(case["messages"])
    assert case["message"] in caught.value.headline


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Hello"}'),
        ("{{ '<é>' | tojson }}", '"<é>"'),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}", ""),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Hello!"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ tools is none }} {{ bos_token }}", "True <s>"),
        ("{% set x = namespace(n=1) %}{% set x.n = x.n + 1 %}{{ x.n }}", "2"),
        ("{{ dict(a=1) | tojson(indent=1) }}", '{\n "a": 1\n}'),
        ("{{ raise_exception is defined }}{{ undefined_name }}", "True"),
    ],
)
def test_what_templates_in_use_rely_on(source, expected):
    assert ChatTemplate(source, {"bos_token": "<s>"}).render(HELLO) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ (messages | map(attribute='__class__') | first).__name__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ '%s'.format.__self__.__class__ }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ namespace(__class__=1) }}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ not even jinja",
    ],
)
def test_hostile_and_broken_templates_do_not_get_out(source):
    with pytest.raises(nt.InputError, match="the chat template refuses the messages"):
        ChatTemplate(source).render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10 ** 10 }}",
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ range(10 ** 9) | list }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x' * 20000000 }}",
    ],
)
def test_large_templates_end_with_an_error(source):
    with pytest.raises(nt.InputError, match="the chat template"):
        ChatTemplate(source).render(HELLO)


def test_a_template_without_end_is_ended(monkeypatch):
    monkeypatch.setattr("namedtensor.tasks._template._PATIENCE", 1)
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(nt.InputError, match="did not end within 1 seconds"):
        ChatTemplate(loops).render(HELLO)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "at least one message"),
        ("hello", "must be a list"),
        ({"role": "user", "content": "x"}, "must be a list"),
        ([{"role": "user"}], "message 0 needs a role, a string, and a content"),
        ([*HELLO, {"role": 1, "content": "x"}], "message 1 needs a role"),
        ([{"role": "user", "content": object()}], "must be plain data"),
    ],
)
def test_messages_of_another_form_are_refused(template, messages, problem):
    with pytest.raises(nt.InputError, match=problem):
        template.render(messages)


@pytest.fixture
def found(tmp_path):
    """The template of a checkpoint with these files beside the weights."""

    def find(**files):
        shutil.copy(CHAT / "model.safetensors", tmp_path)
        for name, content in files.items():
            path = tmp_path / name.replace("__", ".")
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return ChatTemplate.find(nt.Checkpoint.open(tmp_path))

    return find


def test_a_file_of_its_own_comes_before_the_tokenizers_config(found):
    template = found(chat_template__jinja="A", tokenizer_config__json={"chat_template": "B", "eos_token": "</s>"})
    assert template == ChatTemplate("A", {"eos_token": "</s>"})


def test_of_several_templates_the_default_is_taken(found):
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert found(tokenizer_config__json={"chat_template": named}).source == "D"


def test_special_tokens_are_found_in_every_form(found):
    template = found(
        tokenizer_config__json={"chat_template": "x", "bos_token": {"content": "<s>"}, "pad_token": None},
        special_tokens_map__json={"unk_token": "<unk>"},
    )
    assert template.tokens == {"bos_token": "<s>", "unk_token": "<unk>"}


def test_a_checkpoint_may_have_none(found):
    assert found(tokenizer_config__json={}) is None


@pytest.mark.parametrize("config", [[], {"chat_template": 7}, {"chat_template": "x" * (1 << 21)}])
def test_a_template_that_is_no_text_is_refused(found, config):
    with pytest.raises(nt.CheckpointError, match=r"tokenizer_config.json"):
        found(tokenizer_config__json=config)
