"""Names and shapes in the weight files of two-tower models, read without torch.

The layout that all are brought to is OpenAI's: `visual.…` for pictures; for texts `token_embedding.weight`,
`positional_embedding`, `transformer.resblocks.N.…`, `ln_final.…`, `text_projection`; and `logit_scale`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_reading import printable
from lensmount_vision.models.settings import read_json_object

Shapes = Mapping[str, tuple[int, ...]]

_TABLES = ("text_model.embeddings.token_embedding.weight", "text.token_embedding.weight", "token_embedding.weight")


def strip_names(names: Iterable[str]) -> dict[str, str]:
    """Plain names by the names in a file: wrappers (`state_dict.`, `module.`, `model.`) and open_clip's `text.` go.

    Returns:
        Original name by plain name; empty where the file holds no two-tower model.
    """
    listed = list(names)
    prefix = None
    for name in listed:
        ending = next((table for table in _TABLES if name == table or name.endswith("." + table)), None)
        if ending is not None:
            prefix = name.removesuffix(ending)
            break
    if prefix is None:
        return {}
    plain = {name[len(prefix) :]: name for name in listed if name.startswith(prefix)}
    return {name.removeprefix("text."): original for name, original in plain.items()}


def has_text_tower(names: Iterable[str]) -> bool:
    """Whether plain names hold a text tower in OpenAI's layout."""
    held = set(names)
    projection = {"text_projection", "text_projection.weight"}
    return {"positional_embedding", "ln_final.weight", "token_embedding.weight"} <= held and bool(projection & held)


def count_blocks(shapes: Iterable[str], prefix: str) -> int:
    """Number of blocks below a prefix: `visual.transformer.resblocks.`.

    Raises:
        ModelFileError: Their numbers have gaps.
    """
    numbers = {int(part) for name in shapes if name.startswith(prefix) for part in [name[len(prefix) :].split(".")[0]]
               if part.isdigit()}  # fmt: skip
    if numbers != set(range(len(numbers))) or not numbers:
        raise ModelFileError(
            f"the blocks below {prefix} are not complete", found=str(sorted(numbers))[:80], expected="0, 1, 2, …"
        )
    return len(numbers)


def square(count: int, what: str) -> int:
    """The side of a square grid of so many places.

    Raises:
        ModelFileError: The number is no square.
    """
    side = math.isqrt(max(count, 0))
    if side * side != count or side < 1:
        raise ModelFileError(f"{what} do not form a square", found=str(count), expected="a square number")
    return side


def heads_of(width: int, wanted: int | None, what: str, head_width: int = 64) -> int:
    """Heads of an attention layer: as told, else one for each 64 channels, as OpenAI has it.

    Raises:
        ModelFileError: They do not divide the channels.
    """
    heads = wanted if wanted is not None else max(1, width // head_width)
    if width % heads:
        raise ModelFileError(
            f"{what} cannot have so many heads", found=f"{heads} heads for {width} channels", fix="say how many: heads="
        )
    return heads


def text_geometry(shapes: Shapes, heads: int | None) -> dict[str, int]:
    """Arguments of `TextTower` but its activation, from the shapes in OpenAI's layout.

    Raises:
        ModelFileError: A tensor is missing or of an impossible shape.
    """
    vocabulary, width = _two(shapes, "token_embedding.weight")
    context, _ = _two(shapes, "positional_embedding")
    _, dimension = _two(shapes, "text_projection")
    hidden, _ = _two(shapes, "transformer.resblocks.0.mlp.c_fc.weight")
    return {
        "vocabulary": vocabulary,
        "context": context,
        "width": width,
        "layers": count_blocks(shapes, "transformer.resblocks."),
        "heads": heads_of(width, heads, "the text tower"),
        "hidden": hidden,
        "dimension": dimension,
    }


def _two(shapes: Shapes, name: str) -> tuple[int, int]:
    shape = shapes.get(name)
    if shape is None or len(shape) != 2:
        raise ModelFileError(f"tensor {name} is {'missing' if shape is None else 'malformed'}", found=str(shape))
    return shape[0], shape[1]


def read_config(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    """A JSON object among a package's files; empty where there is none.

    Raises:
        ModelFileError: It is malformed.
    """
    return read_json_object(files[name]) if name in files else {}


def table(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A table in a configuration; empty where there is none."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def whole(config: Mapping[str, Any], key: str, where: str) -> int | None:
    """A positive whole number in a configuration, or None.

    Raises:
        ModelFileError: It is something else.
    """
    value = config.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ModelFileError(
        f"{where} is malformed at {key}", found=printable(value, 80), expected="a positive whole number"
    )


def triple(config: Mapping[str, Any], key: str, where: str) -> tuple[float, float, float] | None:
    """Three numbers in a configuration, or None.

    Raises:
        ModelFileError: It is something else.
    """
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) for v in value):
        return (float(value[0]), float(value[1]), float(value[2]))
    raise ModelFileError(f"{where} is malformed at {key}", found=printable(value, 80), expected="three numbers")


def refuse_open_clip_variants(config: Mapping[str, Any], where: str) -> None:
    """Refuses configurations of open_clip whose towers work otherwise than CLIP's.

    Raises:
        UnsupportedModelError: Naming what is different.
    """
    model = table(config, "model_cfg") or config
    text, vision = table(model, "text_cfg"), table(model, "vision_cfg")
    strange = [key for key in ("hf_model_name", "no_causal_mask", "embed_cls", "no_ln_final") if text.get(key)]
    strange += [key for key in ("attentional_pool", "global_average_pool", "no_ln_pre", "final_ln_after_pool")
                if vision.get(key)]  # fmt: skip
    if text.get("pool_type", "argmax") != "argmax":
        strange.append(f"pool_type={text['pool_type']}")
    if vision.get("pool_type", "tok") not in ("tok", "map"):
        strange.append(f"pool_type={vision['pool_type']}")
    if strange:
        raise UnsupportedModelError(
            f"{where} describes a variant of CLIP that is not supported", found=", ".join(map(str, strange))
        )
