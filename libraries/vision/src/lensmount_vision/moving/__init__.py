"""The names of inference-models over lensmount's models, for programs that move over with one changed import.

Nothing imports it but those programs, `lensmount.AutoModel` and lensmount-inference-compat. It holds no model of its
own: parameters are translated, and what is returned are views of our models and results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_vision.moving.auto_model": ("AutoModel",),
    "lensmount_vision.moving.caches": ("InMemoryCache", "NoCache"),
    "lensmount_vision.moving.names": (
        "BackendType",
        "ColorFormat",
        "Confidence",
        "InstanceSegmentationMaskFormat",
        "PreProcessingOverrides",
        "Quantization",
        "ReferenceBoundingBox",
        "ReferenceExample",
    ),
    "lensmount_vision.moving.parameters": ("ParameterNotice",),
    "lensmount_vision.moving.predictions": (
        "ClassificationPrediction",
        "Detections",
        "InstanceDetections",
        "InstancesRLEMasks",
        "KeyPoints",
        "SAM2Prediction",
    ),
    "lensmount_vision.moving.tables": ("CALLS", "FAMILIES", "PARAMETERS", "Parameter"),
    "lensmount_vision.moving.views": (
        "DetectorView",
        "EmbedderView",
        "OpenVocabularyView",
        "SAM2ImageEmbeddings",
        "SegmenterView",
        "View",
        "view_of",
    ),
}

if TYPE_CHECKING:
    from lensmount_vision.moving.auto_model import AutoModel
    from lensmount_vision.moving.caches import InMemoryCache, NoCache
    from lensmount_vision.moving.names import (
        BackendType,
        ColorFormat,
        Confidence,
        InstanceSegmentationMaskFormat,
        PreProcessingOverrides,
        Quantization,
        ReferenceBoundingBox,
        ReferenceExample,
    )
    from lensmount_vision.moving.parameters import ParameterNotice
    from lensmount_vision.moving.predictions import (
        ClassificationPrediction,
        Detections,
        InstanceDetections,
        InstancesRLEMasks,
        KeyPoints,
        SAM2Prediction,
    )
    from lensmount_vision.moving.tables import CALLS, FAMILIES, PARAMETERS, Parameter
    from lensmount_vision.moving.views import (
        DetectorView,
        EmbedderView,
        OpenVocabularyView,
        SAM2ImageEmbeddings,
        SegmenterView,
        View,
        view_of,
    )

__all__ = [
    "CALLS", "FAMILIES", "PARAMETERS", "AutoModel", "BackendType", "ClassificationPrediction", "ColorFormat",
    "Confidence", "Detections", "DetectorView", "EmbedderView", "InMemoryCache", "InstanceDetections",
    "InstanceSegmentationMaskFormat", "InstancesRLEMasks", "KeyPoints", "NoCache", "OpenVocabularyView",
    "Parameter", "ParameterNotice", "PreProcessingOverrides", "Quantization", "ReferenceBoundingBox",
    "ReferenceExample", "SAM2ImageEmbeddings", "SAM2Prediction", "SegmenterView", "View", "view_of",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
