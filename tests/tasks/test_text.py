"""Text from ids, piece by piece, and where it stops."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import namedtensor as nt
from namedtensor.tasks._text import StopStrings, TextStream, read_tokenizer

CHAT = Path(__file__).parents[1] / "golden" / "llama" / "chat"
REFERENCE = json.loads((CHAT / "reference.json").read_text())


def pieces(ids):
    stream = TextStream(read_tokenizer(CHAT / "tokenizer.json"))
    return [*(stream.push(id) for id in ids), stream.finish()]


@pytest.mark.parametrize("case", REFERENCE["texts"], ids=lambda case: repr(case["text"][:12]))
def test_pieces_put_together_are_the_whole(case):
    assert "".join(pieces(case["ids"])) == case["decoded_without_special"]


def test_a_character_of_several_tokens_comes_in_one_piece():
    ids = read_tokenizer(CHAT / "tokenizer.json").encode("🙂", add_special_tokens=False).ids
    assert len(ids) > 1
    assert pieces(ids) == [*[""] * (len(ids) - 1), "🙂", ""]


def test_bytes_that_are_no_character_come_at_the_latest_at_the_end():
    ids = read_tokenizer(CHAT / "tokenizer.json").encode("🙂", add_special_tokens=False).ids
    assert "".join(pieces(ids[:-1])) == "\N{REPLACEMENT CHARACTER}"


@given(st.lists(st.integers(0, 419), max_size=60))
def test_any_ids_give_the_text_that_decoding_them_at_once_gives(ids):
    whole = read_tokenizer(CHAT / "tokenizer.json").decode(ids, skip_special_tokens=True)
    assert "".join(pieces(ids)) == whole


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_text_ends_before_the_first_stop_string_however_it_is_cut(text, strings, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    stops, shown = StopStrings(strings), ""
    for first, last in zip([0, *cuts], [*cuts, len(text)], strict=True):
        shown += stops.push(text[first:last])
        # Nothing of a stop string that is still to come may have been shown.
        assert not any(s in shown for s in strings)
    shown += stops.finish()
    places = [text.find(s) for s in strings if s in text]
    if places:
        assert stops.found in strings
        # The string that is complete first wins; of those, the one that begins first.
        ends = min(text.find(s) + len(s) for s in strings if s in text)
        assert shown == text[: len(shown)]
        assert len(shown) <= ends
        assert text[len(shown) :].startswith(stops.found)
    else:
        assert stops.found is None
        assert shown == text


def test_text_that_may_become_a_stop_string_waits():
    stops = StopStrings(["</answer>"])
    assert stops.push("42</ans") == "42"
    assert stops.push("wer!") == "</answer!"
    assert stops.push("</answer> and more") == ""
    assert stops.found == "</answer>"
    assert stops.push("more") == ""


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b'{"model": {"type": "BPE"}}', b"\xff\xfe"])
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(nt.CheckpointError, match=r"tokenizer.json: not a tokenizer") as caught:
        read_tokenizer(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_far_too_large_is_refused(tmp_path):
    with pytest.raises(nt.CheckpointError, match="cannot be read"):
        read_tokenizer(tmp_path / "none.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 29)
    with pytest.raises(nt.CheckpointError, match="are no tokenizer; at most"):
        read_tokenizer(tmp_path / "large.json")


def test_what_the_file_says_about_padding_and_truncation_is_left_out(tmp_path):
    tokenizer = json.loads((CHAT / "tokenizer.json").read_text())
    tokenizer["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    case = REFERENCE["texts"][0]
    assert read_tokenizer(tmp_path / "tokenizer.json").encode(case["text"]).ids == case["ids"]
