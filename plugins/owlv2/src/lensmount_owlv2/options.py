"""Load options of OWLv2, and what calls fall back on."""

from __future__ import annotations

from dataclasses import dataclass

from lensmount.errors import OptionError
from lensmount.specs.options import is_whole, positive
from lensmount_owlv2.settings import environment_count

CONFIDENCE = 0.99  # few-shot: (cos + 1) / 2
TEXT_CONFIDENCE = 0.1
ONE_SHOT_CONFIDENCE = 0.9
IOU_THRESHOLD = 0.3
MAX_DETECTIONS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What `registry.load` takes for an OWLv2 in addition to the common options.

    Attributes:
        batch: Pictures in one run of the image tower; None for 8 on a CPU, 16 elsewhere.
        image_cache_entries: Pictures whose proposals are kept; None for the environment's `OWLV2_IMAGE_CACHE_SIZE` plus
            `OWLV2_CPU_IMAGE_CACHE_SIZE` (all lie on the host here), else 1,000.
        image_cache_bytes: Bytes that they may take.
        class_cache_entries: Sets of reference boxes whose embeddings are kept; None for the environment's
            `OWLV2_MODEL_CACHE_SIZE`, else 100.
        text_cache_entries: Texts whose embeddings are kept.
    """

    batch: int | None = None
    image_cache_entries: int | None = None
    image_cache_bytes: int = 1 << 30
    class_cache_entries: int | None = None
    text_cache_entries: int = 10_000

    def __post_init__(self) -> None:
        if self.batch is not None:
            positive("batch", self.batch)
        for name in ("image_cache_entries", "image_cache_bytes", "class_cache_entries", "text_cache_entries"):
            value = getattr(self, name)
            if value is not None and (not is_whole(value) or value < 0):
                raise OptionError(f"{name} is not valid", found=repr(value), expected="a whole number from 0")

    @property
    def images_kept(self) -> int:
        """`image_cache_entries` with the environment behind it."""
        if self.image_cache_entries is not None:
            return self.image_cache_entries
        first = environment_count("OWLV2_IMAGE_CACHE_SIZE", -1, 0)
        second = environment_count("OWLV2_CPU_IMAGE_CACHE_SIZE", -1, 0)
        return 1000 if first < 0 and second < 0 else max(first, 0) + max(second, 0)

    @property
    def classes_kept(self) -> int:
        """`class_cache_entries` with the environment behind it."""
        if self.class_cache_entries is not None:
            return self.class_cache_entries
        return environment_count("OWLV2_MODEL_CACHE_SIZE", 100, 0)


def max_detections(value: int | None) -> int:
    """A call's `max_detections`; None for the environment's `MAX_DETECTIONS`, else 300."""
    return (
        environment_count("MAX_DETECTIONS", MAX_DETECTIONS, 1) if value is None else positive("max_detections", value)
    )
