"""What a network's tensors and configuration say of it, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmount.errors import UnsupportedModelError
from lensmount_vision.models.settings import read_json_object
from lensmount_vision.towers.configs import TowerSizes, check_transformers, epsilon_of, tower_table

HEAD_WIDTH = 64  # of all released networks; a config.json says otherwise
_VISION, _TEXT = "owlv2.vision_model.", "owlv2.text_model."
#: Tensors that OWLv2 has; OWL-ViT lacks the first.
MARKS = (
    "objectness_head.dense0.weight",
    "class_head.dense0.weight",
    "box_head.dense2.weight",
    _VISION + "embeddings.patch_embedding.weight",
    _TEXT + "embeddings.token_embedding.weight",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """Sizes of one transformer."""

    width: int
    layers: int
    heads: int
    hidden: int
    activation: str
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Sizes of a network.

    Attributes:
        vision: The image tower.
        text: The text tower.
        patch: Pixels on a patch's side.
        side: Patches on a side.
        vocabulary: Tokens.
        context: Most tokens of a text.
        dimension: Length of an embedding.
    """

    vision: Tower
    text: Tower
    patch: int
    side: int
    vocabulary: int
    context: int
    dimension: int

    def check(self, config: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """Goes through a `config.json`; see `lensmount_vision.models.settings.check_settings`."""
        shared = {"dimension": self.dimension}
        image = TowerSizes(**_sizes(self.vision), side=self.image_size, patch=self.patch, **shared)
        text = TowerSizes(**_sizes(self.text), vocabulary=self.vocabulary, context=self.context, **shared)
        return check_transformers(config, where, image=image, text=text, by_id=False)

    @property
    def image_size(self) -> int:
        """Pixels on the input's side."""
        return self.side * self.patch


def _sizes(tower: Tower) -> dict[str, int]:
    return {"width": tower.width, "layers": tower.layers, "hidden": tower.hidden}


def is_owlv2(names: Mapping[str, Any]) -> bool:
    """Whether a file holds an OWLv2."""
    return all(mark in names for mark in MARKS)


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object.

    Raises:
        ModelFileError: It is absurdly large, or not a JSON object.
    """
    return read_json_object(path)


def read_layout(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], where: str) -> Layout:
    """Sizes from the tensors' shapes; heads, activation and epsilon from a `config.json`, where there is one.

    Args:
        shapes: Shapes by name, as transformers has them.
        config: Contents of `config.json`, or empty.
        where: Names the file in messages.

    Raises:
        UnsupportedModelError: The tensors are not those of an OWLv2, or contradict the configuration.
    """
    try:
        width, channels, patch, across = shapes[MARKS[3]]
        positions = shapes[_VISION + "embeddings.position_embedding.weight"][0] - 1
        vocabulary, text_width = shapes[MARKS[4]]
        context = shapes[_TEXT + "embeddings.position_embedding.weight"][0]
        dimension = shapes["class_head.dense0.weight"][0]
        projection = shapes["owlv2.text_projection.weight"][0]
        hidden = [shapes[tower + "encoder.layers.0.mlp.fc1.weight"][0] for tower in (_VISION, _TEXT)]
    except (KeyError, ValueError) as error:
        raise UnsupportedModelError(f"{where} is not a whole OWLv2", found=str(error), expected=MARKS[0]) from error
    side = round(positions**0.5)
    if side * side != positions or patch != across or channels != 3 or projection != dimension:
        raise UnsupportedModelError(
            f"{where} has sizes that do not fit together",
            found=f"{positions} positions, patches of {patch}x{across}, {channels} channels, "
            f"embeddings of {dimension} and {projection}",
        )
    vision = _tower(shapes, _VISION, width, hidden[0], tower_table(config, "vision_config"), 12, where)
    text = _tower(shapes, _TEXT, text_width, hidden[1], tower_table(config, "text_config"), 8, where)
    return Layout(
        vision=vision,
        text=text,
        patch=patch,
        side=side,
        vocabulary=vocabulary,
        context=context,
        dimension=dimension,
    )


def _tower(
    shapes: Mapping[str, tuple[int, ...]],
    prefix: str,
    width: int,
    hidden: int,
    settings: Mapping[str, Any],
    usual: int,
    where: str,
) -> Tower:
    """Sizes of one transformer; `usual` are the heads that transformers takes where a configuration does not say."""
    start = prefix + "encoder.layers."
    numbers = {int(name[len(start) :].split(".")[0]) for name in shapes if name.startswith(start)}
    heads = settings.get("num_attention_heads")
    if heads is None:
        heads = usual if settings and width % usual == 0 else max(1, width // HEAD_WIDTH)
    activation = settings.get("hidden_act") or "quick_gelu"
    epsilon = epsilon_of(settings, "layer_norm_eps", where)
    if activation not in ("quick_gelu", "gelu"):
        raise UnsupportedModelError(
            f"{where} has an activation unknown here",
            found=f"hidden_act {activation!r}"[:60],
            expected="quick_gelu or gelu",
        )
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise UnsupportedModelError(
            f"{where} has a configuration that does not fit its tensors", found=f"{heads!r} heads for width {width}"
        )
    if numbers != set(range(len(numbers))):
        raise UnsupportedModelError(f"{where} lacks layers", found=str(sorted(numbers))[:80], expected="0, 1, 2, …")
    return Tower(width=width, layers=len(numbers), heads=heads, hidden=hidden, activation=activation, epsilon=epsilon)
