"""Image processors of transformers: what `processor_config.json` and `preprocessor_config.json` say of pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_reading import printable
from lensmount_vision.models.settings import HARMLESS, READ, Only, Table, check_settings, read_json_object

if TYPE_CHECKING:
    from lensmount.specs import Preprocess

#: transformers 5 writes the first, those before it the second; where both are there, the first counts.
PROCESSOR, IMAGE_PROCESSOR = "processor_config.json", "preprocessor_config.json"
PROCESSOR_FILES = (PROCESSOR, IMAGE_PROCESSOR)
#: Key of a network's metadata, and of an exported graph's: scale, mean and std where they are not the usual ones.
PIXELS = "lensmount.pixels"
#: Of every image processor. Pictures here always have three channels in RGB, whatever they came in.
_COMMON: Table = {
    **dict.fromkeys(("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"), READ),
    **dict.fromkeys(
        ("do_convert_rgb", "default_to_square", "device", "disable_grouping", "input_data_format", "return_tensors",
         "processor_class", "model_input_names", "feature_extractor_type", "return_metadata"),
        HARMLESS,
    ),
    "data_format": Only(("channels_first",)),
    "do_resize": Only((True,)),
    "do_pad": Only((False,)),
    "do_center_crop": Only((False,)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """The settings of an image processor.

    Attributes:
        settings: Its table; empty where there is no file.
        where: The file, for messages.
        beyond: What the file says of other things than pictures.
    """

    settings: Mapping[str, Any]
    where: str
    beyond: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """A setting; None counts as not given."""
        value = self.settings.get(key)
        return default if value is None else value

    def check(self, names: tuple[str, ...], table: Table) -> tuple[str, ...]:
        """Goes through the settings; see `check_settings`.

        Args:
            names: Image processors that work as the model does: `CLIPImageProcessor`; `…Fast` and `…Pil` are its forms.
            table: Rules of what they have beyond the common ones, or instead of these.

        Returns:
            Keys that are not known.
        """
        forms = tuple(name + form for name in names for form in ("", "Fast", "Pil"))
        rules = {**_COMMON, "image_processor_type": Only(forms), **table}
        return check_settings(self.settings, rules, self.where)

    def values(self, spec: Preprocess) -> Preprocess:
        """Scale, mean and std as the processor has them: `pixel * factor`, then `(value - mean) / std`.

        Raises:
            ModelFileError: One is malformed.
        """
        scale = spec.scale
        if self.get("do_rescale") is False:
            scale = 1.0
        elif self.get("rescale_factor") is not None:
            factor = self.get("rescale_factor")
            if (
                isinstance(factor, bool)
                or not isinstance(factor, int | float)
                or not math.isfinite(factor)
                or not factor
            ):
                raise ModelFileError(
                    f"{self.where} is malformed at rescale_factor", found=printable(factor, 80), expected="a number"
                )
            scale = 1 / 255 if math.isclose(factor, 1 / 255, rel_tol=1e-7) else float(factor)
        if self.get("do_normalize") is False:
            return replace(spec, scale=scale, mean=None, std=None)
        mean, std = self._channels("image_mean"), self._channels("image_std")
        if std is not None and not all(std):
            raise ModelFileError(f"{self.where} is malformed at image_std", found=str(std), expected="numbers above 0")
        return replace(spec, scale=scale, mean=mean or spec.mean, std=std or spec.std)

    def _channels(self, key: str) -> tuple[float, float, float] | None:
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = [value] * 3
        if (
            isinstance(value, list)
            and len(value) == 3
            and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
        ):
            return (float(value[0]), float(value[1]), float(value[2]))
        raise ModelFileError(
            f"{self.where} is malformed at {key}", found=printable(value, 80), expected="three numbers"
        )

    def sides(self, key: str) -> tuple[int, int] | None:
        """A size `(height, width)` that is given as such or as one number, or None where there is none.

        Raises:
            ModelFileError: It is malformed.
            UnsupportedModelError: It is given otherwise: by an edge.
        """
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = {"height": value, "width": value}
        if not isinstance(value, dict):
            raise ModelFileError(f"{self.where} is malformed at {key}", found=printable(value, 80), expected="a size")
        height, width = value.get("height"), value.get("width")
        given = {name for name, side in value.items() if side is not None}
        if (
            given == {"height", "width"}
            and isinstance(height, int)
            and isinstance(width, int)
            and min(height, width) > 0
        ):
            return height, width
        raise UnsupportedModelError(
            f"{self.where} has a setting that is not run here",
            found=f"{key} {printable(value, 80)}",
            expected="height and width",
            fix="run it in transformers, or save it with this setting",
        )

    def refuse_size(self, key: str, expected: str) -> UnsupportedModelError:
        """The error for a size that does not fit the network."""
        return UnsupportedModelError(
            f"{self.where} has a setting that is not run here",
            found=f"{key} {printable(self.get(key), 80)}, crop_size {printable(self.get('crop_size'), 80)}",
            expected=expected,
            fix="run it in transformers, or save it with this setting",
        )


def read_image_processor(files: Mapping[str, Path]) -> ImageProcessor:
    """The image processor among a package's files; one without settings where there is none.

    Raises:
        ModelFileError: A file is malformed.
    """
    whole = read_json_object(files[PROCESSOR]) if PROCESSOR in files else {}
    inner = whole.get("image_processor")
    beyond = {key: value for key, value in whole.items() if key != "image_processor"}
    if isinstance(inner, dict):
        return ImageProcessor(inner, str(files[PROCESSOR]), beyond)
    if IMAGE_PROCESSOR in files:
        return ImageProcessor(read_json_object(files[IMAGE_PROCESSOR]), str(files[IMAGE_PROCESSOR]), beyond)
    return ImageProcessor({}, IMAGE_PROCESSOR, beyond)


def pixels_metadata(spec: Preprocess, usual: Preprocess) -> dict[str, str]:
    """Metadata that says how values of pixels are made, so that exported graphs keep it; empty for the usual way."""
    if (spec.scale, spec.mean, spec.std) == (usual.scale, usual.mean, usual.std):
        return {}
    return {PIXELS: json.dumps({"scale": spec.scale, "mean": spec.mean, "std": spec.std})}


def with_pixels(spec: Preprocess, metadata: Mapping[str, str]) -> Preprocess:
    """Preprocessing with what `pixels_metadata` wrote.

    Raises:
        ModelFileError: It is malformed.
    """
    text = metadata.get(PIXELS)
    if text is None:
        return spec
    try:
        said = json.loads(text)
        mean, std = (None if said[key] is None else tuple(float(v) for v in said[key]) for key in ("mean", "std"))
        return replace(spec, scale=float(said["scale"]), mean=mean, std=std)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelFileError(f"metadata {PIXELS!r} is malformed", found=printable(text, 80)) from error
