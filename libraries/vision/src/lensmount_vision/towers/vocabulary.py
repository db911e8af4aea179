"""Vocabularies of CLIP's byte-pair encoding, and the files that hold them."""

from __future__ import annotations

import gzip
import io
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmount.errors import ModelFileError

WORD_END = "</w>"
#: OpenAI's list of merges, cut to those that are used; it lies next to this module (licence: `LICENSE-OpenAI`).
MERGES_FILE = "merges.txt.gz"
MERGES = 48_894  # of the 262,144 in OpenAI's file, these are in the vocabulary of 49,408
OPENAI_SPECIALS = ("<|startoftext|>", "<|endoftext|>")
OPEN_CLIP_SPECIALS = ("<start_of_text>", "<end_of_text>")
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Vocabulary:
    """Ids of a byte-pair encoding.

    Attributes:
        ids: Id by token; tokens that end a word end in `</w>`.
        merges: Pairs in the order in which they merge.
        start: Id that begins every text.
        end: Id that ends every text; the highest of all.
    """

    ids: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """Rows that the embedding table of tokens must have."""
        return max(max(self.ids.values()), self.start, self.end) + 1


def byte_letters() -> dict[int, str]:
    """The printable character that stands for each byte (GPT-2's table), in the order of the vocabulary."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {byte: chr(byte) for byte in kept}
    table.update((byte, chr(256 + i)) for i, byte in enumerate(b for b in range(256) if b not in table))
    return table


def read_merges(content: bytes, where: str) -> Vocabulary:
    """The vocabulary of a list of merges: OpenAI's `bpe_simple_vocab_16e6.txt.gz`, or a part of it.

    Raises:
        ModelFileError: It is not such a list.
    """
    lines = _text(content, where).split("\n")[1 : MERGES + 1]
    merges = tuple((first, second) for first, _, second in (line.partition(" ") for line in lines if line))
    if not merges or any(not first or not second or " " in second for first, second in merges):
        raise ModelFileError(
            f"{where} is not a list of merges",
            found=repr(lines[:1])[:80],
            expected="a heading, then 'a b' on each line",
        )
    letters = list(byte_letters().values())
    tokens = [*letters, *(letter + WORD_END for letter in letters), *(first + second for first, second in merges)]
    ids = {token: number for number, token in enumerate(tokens)}
    return Vocabulary(ids, merges, len(tokens), len(tokens) + 1)


def read_vocab_and_merges(vocab: bytes, merges: bytes, where: str) -> Vocabulary:
    """The vocabulary of a Hugging Face `vocab.json` and `merges.txt`.

    Raises:
        ModelFileError: A file is malformed, or they do not belong together.
    """
    lines = [line for line in _text(merges, where).split("\n") if line.strip() and not line.startswith("#version")]
    return _vocabulary(_json(vocab, where), lines, where)


def read_tokenizer_json(content: bytes, where: str) -> Vocabulary:
    """The vocabulary of a Hugging Face `tokenizer.json` for CLIP.

    Raises:
        ModelFileError: It is malformed, or of another kind than CLIP's byte-pair encoding.
    """
    document = _json(content, where)
    model = document.get("model")
    if not isinstance(model, dict) or model.get("end_of_word_suffix") != WORD_END or "merges" not in model:
        kind = model.get("type") if isinstance(model, dict) else None
        raise ModelFileError(
            f"{where} is not CLIP's tokeniser",
            found=f"type {kind}" if kind else "no model in it",
            expected=f"byte-pair encoding with {WORD_END!r} at the ends of words",
        )
    ids = {**model.get("vocab", {})}
    for added in document.get("added_tokens") or []:
        ids.setdefault(added["content"], added["id"])
    return _vocabulary(ids, model["merges"], where)


def _vocabulary(ids: Any, merges: Any, where: str) -> Vocabulary:
    pairs: list[Any] = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    sound = isinstance(ids, dict) and all(isinstance(number, int) for number in ids.values())
    if not sound or any(len(pair) != 2 for pair in pairs):
        raise ModelFileError(f"{where} is malformed", expected="ids by token, and pairs of tokens to merge")
    for start, end in (OPENAI_SPECIALS, OPEN_CLIP_SPECIALS):
        if start in ids and end in ids:
            plain = {token: number for token, number in ids.items() if token not in (start, end)}
            return Vocabulary(plain, tuple(pairs), ids[start], ids[end])
    raise ModelFileError(f"{where} has no tokens for start and end", expected=" and ".join(OPENAI_SPECIALS))


def read_vocabulary(files: Mapping[str, Path]) -> Vocabulary | None:
    """The vocabulary among a package's files (`tokenizer.json`, `vocab.json` and `merges.txt`, or merges), or None.

    Raises:
        ModelFileError: A file is there but malformed.
    """
    if "tokenizer.json" in files:
        return read_tokenizer_json(_read(files["tokenizer.json"]), str(files["tokenizer.json"]))
    if "vocab.json" in files and "merges.txt" in files:
        return read_vocab_and_merges(_read(files["vocab.json"]), _read(files["merges.txt"]), str(files["vocab.json"]))
    for name in (MERGES_FILE, "bpe_simple_vocab_16e6.txt.gz"):
        if name in files:
            return read_merges(_read(files[name]), str(files[name]))
    return None


def load_vocabulary(files: Mapping[str, Path], rows: int, model: str, *, otherwise: str) -> Vocabulary:
    """The vocabulary of a model: that of its package, or CLIP's where the package has none.

    Args:
        files: The package's files by name.
        rows: Rows of the text tower's table of tokens; 0 where unknown.
        model: Id of the model, for messages.
        otherwise: What the model can do without a tokeniser, for messages: `embed_images works without them`.

    Raises:
        ModelFileError: A file is malformed, or the vocabulary has another size than the table.
    """
    found = read_vocabulary(files) or packaged_vocabulary()
    if rows and found.size != rows:
        raise ModelFileError(
            f"the tokeniser does not fit the text tower of {model!r}",
            found=f"a vocabulary of {found.size} tokens for an embedding of {rows}",
            expected="the model's own tokenizer.json, or vocab.json and merges.txt, next to its weights",
            fix=f"put the tokeniser's files in the folder of the weights; {otherwise}",
        )
    return found


def packaged_vocabulary() -> Vocabulary:
    """CLIP's vocabulary of 49,408 tokens, from the wheel of lensmount-vision.

    Raises:
        ModelFileError: The wheel lacks it.
    """
    return read_merges(packaged_merges(), MERGES_FILE)


def packaged_merges() -> bytes:
    """The content of `MERGES_FILE`, compressed.

    Raises:
        ModelFileError: The wheel lacks it.
    """
    try:
        content = pkgutil.get_data(__name__, MERGES_FILE)
    except OSError:
        content = None
    if content is None:
        raise ModelFileError(
            f"lensmount-vision lacks {MERGES_FILE}", fix="pip install --force-reinstall lensmount-vision"
        )
    return content


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read", found=str(error)) from error
    if len(content) > _MAX_BYTES:
        raise ModelFileError(f"{path} is too large for a tokeniser", found=f"more than {_MAX_BYTES} bytes")
    return content


def _text(content: bytes, where: str) -> str:
    try:
        if content[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(_MAX_BYTES)  # a bomb ends here
        return content.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{where} cannot be read", found=str(error), expected="UTF-8 text, plain or gzip"
        ) from error


def _json(content: bytes, where: str) -> Any:
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{where} is not JSON", found=str(error)[:80]) from error
    if not isinstance(document, dict):
        raise ModelFileError(f"{where} is malformed", found=type(document).__name__, expected="a JSON object")
    return document
