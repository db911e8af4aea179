"""CLIP's tokeniser on vocabularies small enough to follow by hand, and files that are not what they should be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lensmount.errors import InputError, ModelFileError
from lensmount_vision.towers.tokens import ClipTokenizer, clean, pad
from lensmount_vision.towers.vocabulary import (
    OPEN_CLIP_SPECIALS,
    byte_letters,
    read_merges,
    read_tokenizer_json,
    read_vocab_and_merges,
    read_vocabulary,
)

pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")

MERGES = "#version: 0.2\nd o\ndo g</w>\na t</w>\nc at</w>\n"
A, C = ord("a") - ord("!"), ord("c") - ord("!")  # ids of single letters
DO, DOG, AT, CAT, START, END = 512, 513, 514, 515, 516, 517


def tokenizer(context: int = 8, **options) -> ClipTokenizer:
    return ClipTokenizer(read_merges(MERGES.encode(), "merges"), context, **options)


def test_merges_by_hand() -> None:
    assert tokenizer().encode(["dog cat"]) == [[START, DOG, CAT, END]]
    assert tokenizer().encode(["doc"]) == [[START, DO, C + 256, END]]  # the last letter of a word is another token
    assert tokenizer().encode(["  DOG\n\tdog "]) == [[START, DOG, DOG, END]]


def test_empty_text_is_start_and_end() -> None:
    assert tokenizer().encode(["", " \n"]) == [[START, END], [START, END]]


def test_too_long_is_cut_and_still_ends() -> None:
    assert tokenizer(4).encode(["dog cat dog cat"]) == [[START, DOG, CAT, END]]


def test_entities_and_mojibake_are_mended_before_splitting() -> None:
    assert clean("&amp;lt;B&amp;gt;  schÃ¶n “x”") == '<b> schön "x"'
    assert clean("ΟΔΟΣ") == "οδος"  # Python's lower knows the final sigma


def test_specials_count_only_as_pieces_of_their_own() -> None:
    plain = tokenizer(64)
    assert plain.encode(["dog <|endoftext|> cat"]) == [[START, DOG, END, CAT, END]]
    assert END not in plain.encode(["!<|endoftext|>"])[0][1:-1]
    other = tokenizer(64, specials=OPEN_CLIP_SPECIALS)
    assert other.encode(["<end_of_text>dog"]) == [[START, END, DOG, END]]
    assert END not in other.encode(["<|endoftext|>"])[0][1:-1]


def test_letters_of_newer_unicode_are_letters() -> None:
    # U+0558 became a letter in Unicode 17; next to a sign it starts a piece of its own, as in the reference.
    assert [row[-2] >= 256 for row in tokenizer(32).encode(["\u0558!"])] == [True]
    pieces = tokenizer(32)._encoder.pre_tokenizer.pre_tokenize_str("\u0558!")
    assert len(pieces) == 2


def test_the_iota_below_is_in_no_piece() -> None:
    """The reference's expression, `regex` with IGNORECASE, finds U+0345 in none of its alternatives."""
    assert tokenizer().encode(["cat\u0345dog", "\u0345"]) == [[START, CAT, DOG, END], [START, END]]


def test_padding_trims_to_the_longest() -> None:
    rows = tokenizer().encode(["dog", "dog cat dog"])
    assert pad(rows).tolist() == [[START, DOG, END, 0, 0], [START, DOG, CAT, DOG, END]]
    assert pad(rows, 8, "int32").shape == (2, 8)
    assert pad([]).shape == (0, 0)


def test_all_three_kinds_of_files_agree(tmp_path: Path) -> None:
    vocabulary = read_merges(gzip.compress(MERGES.encode()), "gz")
    ids = {**vocabulary.ids, "<|startoftext|>": START, "<|endoftext|>": END}
    pairs = [list(pair) for pair in vocabulary.merges]
    hf = read_vocab_and_merges(json.dumps(ids).encode(), MERGES.encode(), "vocab")
    model = {"type": "BPE", "vocab": ids, "merges": pairs, "end_of_word_suffix": "</w>"}
    fast = read_tokenizer_json(json.dumps({"model": model}).encode(), "tokenizer")
    for other in (hf, fast):
        assert (dict(other.ids), other.merges, other.start, other.end) == (
            vocabulary.ids, vocabulary.merges, START, END,
        )  # fmt: skip
    (tmp_path / "merges.txt.gz").write_bytes(gzip.compress(MERGES.encode()))
    found = read_vocabulary({"merges.txt.gz": tmp_path / "merges.txt.gz"})
    assert found is not None and found.size == END + 1
    assert read_vocabulary({}) is None


def test_byte_letters_are_256_different_ones() -> None:
    assert len(set(byte_letters().values())) == 256
    assert list(byte_letters().values())[A] == "a"


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (lambda c: read_merges(c, "x"), b""),
        (lambda c: read_merges(c, "x"), b"\x1f\x8bbroken"),
        (lambda c: read_merges(c, "x"), b"heading\nno-pair\n"),
        (lambda c: read_merges(c, "x"), b"\xff\xfe"),
        (lambda c: read_tokenizer_json(c, "x"), b"[]"),
        (lambda c: read_tokenizer_json(c, "x"), b"{"),
        (lambda c: read_tokenizer_json(c, "x"), b'{"model": {"type": "WordPiece"}}'),
        (lambda c: read_vocab_and_merges(c, b"#version\na b\n", "x"), b'{"a": 0}'),
        (lambda c: read_vocab_and_merges(c, b"a b c\n", "x"), b'{"a": 0}'),
    ],
)
def test_malformed_files_are_refused(read, content: bytes) -> None:
    with pytest.raises(ModelFileError):
        read(content)


def test_merges_that_do_not_fit_are_refused() -> None:
    ids = {"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
    broken = read_vocab_and_merges(json.dumps(ids).encode(), b"x y\n", "x")
    with pytest.raises(ModelFileError, match="merges"):
        ClipTokenizer(broken, 8).encode(["a"])


@pytest.mark.parametrize("text", [None, 3, b"dog", "x" * 1_000_001])
def test_no_text_is_refused(text) -> None:
    with pytest.raises(InputError):
        tokenizer().encode([text])
