"""What the files next to CLIP's weights say: of the towers, and of what no shape tells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import UnsupportedModelError
from lensmount_clip.options import OPENAI_MARKS, LoadOptions
from lensmount_vision.models.settings import unknown_note
from lensmount_vision.towers.configs import (
    EPSILON,
    OPEN_CLIP,
    UNKNOWN,
    TowerSizes,
    check_open_clip,
    check_transformers,
    epsilon_of,
    open_clip_epsilon,
    tower_table,
)
from lensmount_vision.towers.layouts import read_config, table, whole

if TYPE_CHECKING:
    from lensmount_reading import Checkpoint
    from lensmount_vision.towers.transformer import Activation

CONFIG = "config.json"
GUESSED = (
    "nothing next to the weights says their activation: they are taken as OpenAI's (quick_gelu); most that open_clip "
    'trained have gelu: load them with activation="gelu"'
)
#: Heads that transformers and open_clip take where a configuration does not say, and channels of one in open_clip.
_HF_HEADS, _HF_TEXT_HEADS, _TEXT_HEADS, _HEAD_WIDTH = 12, 8, 8, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What shapes do not tell.

    Attributes:
        activation: Of both towers' MLPs.
        heads: Of the image tower; None for what its width says.
        text_heads: Of the text tower; None for what its width says.
        epsilon: What the image tower's LayerNorms add to the variance.
        text_epsilon: Those of the text tower.
    """

    activation: Activation = "quick_gelu"
    heads: int | None = None
    text_heads: int | None = None
    epsilon: float = EPSILON
    text_epsilon: float = EPSILON


def describing(files: Mapping[str, Path], kind: str) -> str | None:
    """The configuration that describes weights of a layout: first that of the library that wrote them."""
    known = (CONFIG, OPEN_CLIP) if kind == "huggingface" else (OPEN_CLIP, CONFIG)
    for name in known:
        if name in files and (name == OPEN_CLIP or read_config(files, name).get("model_type") == "clip"):
            return name
    return None


def check(
    files: Mapping[str, Path], kind: str, *, image: TowerSizes = UNKNOWN, text: TowerSizes = UNKNOWN
) -> tuple[str, ...]:
    """Goes through the configuration; see `check_settings`.

    Args:
        files: The package's files.
        kind: Layout of the weights.
        image: Sizes of the image tower, where its tensors are at hand.
        text: Sizes of the text tower.

    Returns:
        The note about keys that are not known, if there are any.
    """
    name = describing(files, kind)
    if name is None:
        return ()
    goes_through = check_open_clip if name == OPEN_CLIP else check_transformers
    return unknown_note(goes_through(read_config(files, name), str(files[name]), image=image, text=text), name)


def is_guess(files: Mapping[str, Path], kind: str, names: Collection[str], tree: Callable[[], object]) -> bool:
    """Whether nothing says which GELU the weights were trained with.

    Args:
        files: The package's files.
        kind: Layout of the weights.
        names: Plain names of the tensors.
        tree: Gives the checkpoint's tree, where it is needed.
    """
    if kind == "huggingface" or describing(files, kind) is not None or set(names) >= OPENAI_MARKS:
        return False
    return not _of_training(tree())


def _of_training(tree: object) -> bool:
    """Whether a checkpoint is one of open_clip's training, whose default is GELU."""
    return isinstance(tree, dict) and {"epoch", "state_dict"} <= set(tree)


def read_settings(
    files: Mapping[str, Path], checkpoint: Checkpoint, options: LoadOptions, *, kind: str, width: int, text_width: int
) -> Settings:
    """Options first, then the configuration next to the weights, then what the kind of file says.

    Args:
        files: The package's files.
        checkpoint: The weights.
        options: As asked for.
        kind: Layout of the weights.
        width: Channels of the image tower's attention.
        text_width: Channels of the text tower.

    Raises:
        ModelFileError: A configuration is malformed.
        UnsupportedModelError: It describes towers that work otherwise.
    """
    name = describing(files, kind)
    activation: Any = None
    heads = text_heads = None
    epsilon = text_epsilon = EPSILON
    if name == OPEN_CLIP:
        where, config = str(files[name]), read_config(files, name)
        model = table(config, "model_cfg") or config
        activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
        vision, text = table(model, "vision_cfg"), table(model, "text_cfg")
        heads = _divides(width, width // (whole(vision, "head_width", where) or _HEAD_WIDTH))
        text_heads = whole(text, "heads", where) or _divides(text_width, _TEXT_HEADS)
        epsilon = open_clip_epsilon(vision, "vision_cfg", where)
        text_epsilon = open_clip_epsilon(text, "text_cfg", where)
    elif name == CONFIG:
        where, config = str(files[name]), read_config(files, name)
        vision, text = tower_table(config, "vision_config"), tower_table(config, "text_config")
        activation = vision.get("hidden_act") or "quick_gelu"
        other = text.get("hidden_act") or "quick_gelu"
        if activation not in ("quick_gelu", "gelu") or other != activation:
            raise UnsupportedModelError(
                f"{where} names activations that are not supported",
                found=f"hidden_act {activation} of pictures, {other} of texts",
                expected="quick_gelu or gelu in both towers",
            )
        heads = whole(vision, "num_attention_heads", where) or _divides(width, _HF_HEADS)
        text_heads = whole(text, "num_attention_heads", where) or _divides(text_width, _HF_TEXT_HEADS)
        epsilon, text_epsilon = (epsilon_of(tower, "layer_norm_eps", where) for tower in (vision, text))
    elif _of_training(checkpoint.tree):
        activation = "gelu"
    return Settings(
        activation=options.activation or activation or "quick_gelu",
        heads=options.heads or heads,
        text_heads=options.text_heads or text_heads,
        epsilon=epsilon,
        text_epsilon=text_epsilon,
    )


def _divides(width: int, heads: int) -> int | None:
    return heads if heads > 0 and width % heads == 0 else None
