"""CLIP's byte-pair encoding, which Perception Encoder and OWLv2 share.

The merges run in the `tokenizers` library. For weights in OpenAI's and open_clip's layouts, cleaning and lower-casing
come before them and are done here as in OpenAI's `simple_tokenizer.py` (ftfy, HTML entities twice, white space,
`str.lower`), since the library's own normalisers differ from it on entities, mojibake and capital sigma: ids are equal
to the reference, not merely close. For transformers' layout its `CLIPTokenizer` is the reference: that library's
normalisers, neither ftfy nor entities.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from lensmount.errors import InputError, MissingDependencyError, ModelFileError
from lensmount_vision.towers.recognise import CLEANING
from lensmount_vision.towers.vocabulary import OPENAI_SPECIALS, WORD_END, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Letters and numbers of Unicode 17 and 18: the reference's `regex` module knows them, the library's engine does not.
_NEW_LETTERS = (
    "558 58b-58c 88f c5c cdc 208f 209d-209f a7ce-a7cf a7d2 a7d4 a7dd a7e2 a7f1 ab6c-ab6d 107bb-107bf 10940-10959 "
    "10ec5-10ec7 10ed9-10eee 11b0a 11db0-11ddb 11df1 16ea0-16eb8 16ebb-16ed3 16ff2-16ff3 187f8-187ff 18cd6-18cda "
    "18d09-18d20 18d80-18df2 18e00-19191 191a0-191d2 1b123-1b128 1b168 1d6a6 1df1f-1df24 1df2b-1df81 1df90-1df96 "
    "1dfcd-1dfff 1e6c0-1e6de 1e6e0-1e6e2 1e6e4-1e6e5 1e6e7-1e6ed 1e6f0-1e6f4 1e6fe-1e6ff 2b73a-2b73f 2b81e "
    "2cea2-2cead 323b0-33479 3d000-3fc3f"
)
_NEW_NUMBERS = "11de0-11de9 1246f 12475-1247f 12550-12686 16ff4-16ff6"
# The reference's expression ignores case, and the Greek iota below folds to the letter iota: it is in no piece at all.
_DROPPED = r"\x{345}"
_MAX_TEXT = 1_000_000

Cleaning = Literal["openai", "transformers"]


#: What a piece is in transformers' `CLIPTokenizer`, on text in lower case.
_TRANSFORMERS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _pieces(specials: Sequence[str]) -> str:
    """The expression of what a piece is; with `ſ`, since the reference ignores case and that letter folds to s."""
    words = [re.escape(special).replace("s", "[sſ]") for special in specials]
    letter, number = r"\p{L}" + _ranges(_NEW_LETTERS), r"\p{N}" + _ranges(_NEW_NUMBERS)
    return "|".join(
        [
            *words,
            "'[sſ]",
            "'t",
            "'re",
            "'ve",
            "'m",
            "'ll",
            "'d",
            f"[{letter}]+",
            f"[{number}]",
            rf"[^\s{letter}{number}{_DROPPED}]+",
        ]
    )


def _ranges(listed: str) -> str:
    return "".join("-".join(f"\\x{{{end}}}" for end in span.split("-")) for span in listed.split())


class ClipTokenizer:
    """Texts to token ids.

    Thread-safe; the encoder is built on first use (about 0.1 s).

    Args:
        vocabulary: Ids and merges, or a function that gives them, called on first use.
        context_length: Most tokens of a text, start and end included; longer ones are cut and end in the end token.
        specials: Literal texts that stand for start and end where they are pieces of their own, as in the reference.
        cleaning: `openai` mends mojibake and ligatures, undoes HTML entities twice, makes white space single and case
            lower; `transformers` composes characters (NFC), makes white space single and case lower, no more.
    """

    def __init__(
        self,
        vocabulary: Vocabulary | Callable[[], Vocabulary],
        context_length: int,
        specials: tuple[str, str] = OPENAI_SPECIALS,
        *,
        cleaning: Cleaning = "openai",
    ) -> None:
        self.cleaning = cleaning
        self._given = vocabulary
        self.context_length = context_length
        self._specials = specials

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Ids and merges."""
        return self._given if isinstance(self._given, Vocabulary) else self._given()

    @cached_property
    def _encoder(self) -> Any:
        try:
            from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
        except ImportError as error:
            raise MissingDependencyError(
                "texts need the package tokenizers", found=str(error), fix="pip install tokenizers"
            ) from error
        try:
            vocabulary = self.vocabulary
            plain = self.cleaning == "transformers"
            ids, unknown = dict(vocabulary.ids), {}
            if plain:
                ids |= dict(zip(self._specials, (vocabulary.start, vocabulary.end), strict=True))
                unknown["unk_token"] = self._specials[1]
            made = Tokenizer(models.BPE(ids, list(vocabulary.merges), end_of_word_suffix=WORD_END, **unknown))
            if plain:
                made.normalizer = normalizers.Sequence(
                    [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
                )
                made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in self._specials])
        except Exception as error:  # the library raises bare exceptions
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError("the tokeniser's merges do not fit its vocabulary", found=str(error)) from error
        pieces = _TRANSFORMERS if plain else _pieces(self._specials)
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pieces), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=plain),
            ]
        )
        return made

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text with start and end, at most `context_length` of them, without padding.

        Raises:
            InputError: Something is not text, or absurdly long.
            MissingDependencyError: tokenizers or ftfy is not installed.
            ModelFileError: The vocabulary's file is malformed.
        """
        plain = self.cleaning == "transformers"
        cleaned = [check_text(text) if plain else clean(text) for text in texts]
        encoder, vocabulary = self._encoder, self.vocabulary
        rows = []
        for text, encoding in zip(cleaned, encoder.encode_batch(cleaned, add_special_tokens=False), strict=True):
            special = not plain and any(name in text for name in self._specials)
            ids = self._with_specials(text) if special else encoding.ids
            if len(ids) > self.context_length - 2:
                ids = ids[: self.context_length - 2]
            rows.append([vocabulary.start, *ids, vocabulary.end])
        return rows

    def _with_specials(self, text: str) -> list[int]:
        """A text that spells out the start or end token: rare, so piece by piece."""
        vocabulary, encoder = self.vocabulary, self._encoder
        numbers = dict(zip(self._specials, (vocabulary.start, vocabulary.end), strict=True))
        ids: list[int] = []
        for _, (first, last) in encoder.pre_tokenizer.pre_tokenize_str(text):
            piece = text[first:last]
            ids += [numbers[piece]] if piece in numbers else encoder.encode(piece, add_special_tokens=False).ids
        return ids


def pad(rows: Sequence[Sequence[int]], length: int | None = None, dtype: str = "int64") -> NDArray[np.integer[Any]]:
    """Rows of ids as an array `(N, length)`, padded with 0 as the reference does; None trims to the longest row."""
    import numpy as np

    width = length or max((len(row) for row in rows), default=0)
    array = np.zeros((len(rows), width), dtype)
    for target, row in zip(array, rows, strict=True):
        target[: len(row)] = row
    return array


def clean(text: str) -> str:
    """Text as CLIP was trained on it: mojibake mended, entities undone, white space single, lower case.

    Raises:
        InputError: It is no text, or absurdly long.
        MissingDependencyError: ftfy is not installed.
    """
    check_text(text)
    try:
        import ftfy
    except ImportError as error:
        raise MissingDependencyError("texts need the package ftfy", found=str(error), fix="pip install ftfy") from error
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


def check_text(text: str) -> str:
    """The text itself.

    Raises:
        InputError: It is no text, or absurdly long.
    """
    if not isinstance(text, str):
        raise InputError(
            "a text is expected", found=f"{type(text).__module__}.{type(text).__qualname__}", expected="str"
        )
    if len(text) > _MAX_TEXT:
        raise InputError("a text is too long", found=f"{len(text):,} characters", expected=f"at most {_MAX_TEXT:,}")
    return text


def cleaning_of(metadata: Mapping[str, str]) -> Cleaning:
    """How texts are cleaned, as the metadata of a text tower has it; as OpenAI's where it says nothing.

    Raises:
        ModelFileError: It says something else.
    """
    found = metadata.get(CLEANING, "openai")
    if found not in ("openai", "transformers"):
        raise ModelFileError(f"metadata {CLEANING!r} is not known", found=found[:80], expected="openai or transformers")
    return cast("Cleaning", found)
