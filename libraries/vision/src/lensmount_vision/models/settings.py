"""Settings of a checkpoint: each is obeyed, or must be what is built, or is named as unknown.

A plugin describes each layout that it reads by one table, key -> rule. `check_settings` goes through a configuration by
it, and refuses a value that would need another network than the one that is built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_reading import printable

_MAX_JSON = 16 << 20


@dataclass(frozen=True, slots=True)
class Only:
    """Rule of a setting that must be what is built.

    Attributes:
        values: Values that are run; a list equals a tuple, and numbers are compared to seven digits.
    """

    values: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return any(_equal(value, one) for one in self.values)


#: `"read"`: obeyed by whoever reads it. `"harmless"`: changes no result of a trained network (training, bookkeeping).
#: A table: the rules of a nested table.
Rule = Union[Literal["read", "harmless"], Only, Mapping[str, "Rule"]]  # noqa: UP007 - a recursive alias
Table = Mapping[str, Rule]
READ: Literal["read"] = "read"
HARMLESS: Literal["harmless"] = "harmless"

#: What every `config.json` of transformers may say, of the model and of each of its parts.
TRANSFORMERS: Table = {
    **dict.fromkeys(
        (
            # bookkeeping
            "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "model_type", "return_dict",
            "name_or_path", "output_attentions", "output_hidden_states", "use_cache", "task_specific_params",
            "problem_type", "finetuning_task", "tokenizer_class", "prefix", "label2id", "torchscript", "use_bfloat16",
            "tf_legacy_loss", "gradient_checkpointing", "output_scores", "return_dict_in_generate", "tpu_name",
            "use_return_dict", "attn_implementation", "chunk_size_feed_forward",
            # training
            "initializer_factor", "initializer_range", "init_std", "attention_dropout", "dropout",
            "logit_scale_init_value", "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate",
            # writing texts, which none of these models does
            "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "diversity_penalty",
            "do_sample", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
            "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length",
            "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "pad_token_id",
            "remove_invalid_values", "repetition_penalty", "sep_token_id", "suppress_tokens", "temperature", "top_k",
            "top_p", "typical_p",
        ),
        HARMLESS,
    ),
    "id2label": HARMLESS,
    "eos_token_id": HARMLESS,
    "num_labels": HARMLESS,
    "add_cross_attention": Only((False,)),
    "cross_attention_hidden_size": Only((None,)),
    "is_decoder": Only((False,)),
    "is_encoder_decoder": Only((False,)),
    "pruned_heads": Only(({},)),
    "quantization_config": Only((None,)),
    "tie_encoder_decoder": HARMLESS,
    "tie_word_embeddings": HARMLESS,
}  # fmt: skip


def check_settings(found: Mapping[str, Any], table: Table, where: str, *, inside: str = "") -> tuple[str, ...]:
    """Goes through a configuration. A value of None counts as not given, as transformers and open_clip have it.

    Args:
        found: The configuration.
        table: The rules of its keys. Keys that begin with `_` are bookkeeping.
        where: Names the file in messages.
        inside: Keys that lead to `found`, each with a dot behind it.

    Returns:
        Keys without a rule, dotted, for `unknown_note`.

    Raises:
        UnsupportedModelError: A value differs from what is built; the message names the key.
        ModelFileError: A value should be a table and is none.
    """
    unknown: list[str] = []
    for key, value in found.items():
        name = f"{inside}{key}"
        rule = table.get(key)
        if value is None or str(key).startswith("_") or rule in (READ, HARMLESS):
            continue
        if rule is None:
            unknown.append(name)
        elif isinstance(rule, Only):
            if not rule.allows(value):
                raise UnsupportedModelError(
                    f"{where} has a setting that is not run here",
                    found=f"{printable(name, 80)} {printable(value, 80)}",
                    expected=" or ".join(printable(one, 80) for one in rule.values),
                    fix="run it in the library that wrote it, or save it with this setting",
                )
        elif not isinstance(value, Mapping):
            raise ModelFileError(f"{where} is malformed at {name}", found=printable(value, 80), expected="a table")
        else:
            unknown += check_settings(value, rule, where, inside=f"{name}.")
    return tuple(unknown)


def unknown_note(unknown: Iterable[str], where: str) -> tuple[str, ...]:
    """The note of a card about keys that no table has; none where there are none."""
    names = list(unknown)
    return (f"settings of {where} that are not known here, and not used: {listed(names, 8)}",) if names else ()


def listed(names: Sequence[str], limit: int) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(printable(name, 100) for name in names[:limit]) + more


def read_json_object(path: Path) -> dict[str, Any]:
    """A configuration: a small JSON file that holds an object.

    Raises:
        ModelFileError: It cannot be read, is absurdly large, or is something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON + 1)
        if len(content) > _MAX_JSON:
            raise ModelFileError(f"{path} is too large for a configuration", expected=f"at most {_MAX_JSON:,} bytes")
        document = json.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} cannot be read, or is not JSON", found=str(error)[:120], expected="a JSON object"
        ) from error
    if not isinstance(document, dict):
        raise ModelFileError(f"{path} is malformed", found=type(document).__name__, expected="a JSON object")
    return document


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-7)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)
