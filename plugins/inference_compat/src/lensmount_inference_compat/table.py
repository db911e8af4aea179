"""Module by module: the names of inference-models 0.39.6, and what stands for each in lensmount."""

from __future__ import annotations

_MOVING = "lensmount_vision.moving:"
_ERRORS = "lensmount.errors:"
_FAMILIES = "lensmount_inference_compat.families:"


def _moving(*names: str) -> dict[str, str]:
    return {name: _MOVING + name for name in names}


_BOXES = {
    **_moving("Detections"),
    "ObjectDetectionModel": _MOVING + "DetectorView",
    "OpenVocabularyObjectDetectionModel": _MOVING + "OpenVocabularyView",
}
_INSTANCES = {
    **_moving("InstanceDetections"),
    "InstanceSegmentationModel": _MOVING + "DetectorView",
    "InstanceSegmentationMaskFormat": _MOVING + "InstanceSegmentationMaskFormat",
}
_CLASSES = {**_moving("ClassificationPrediction"), "ClassificationModel": _MOVING + "DetectorView"}
_POINTS = {**_moving("KeyPoints"), "KeyPointsDetectionModel": _MOVING + "DetectorView"}
_EMBEDDINGS = {"TextImageEmbeddingModel": _MOVING + "EmbedderView"}
_SAM2_CACHES = {
    "Sam2ImageEmbeddingsInMemoryCache": _MOVING + "InMemoryCache",
    "Sam2LowResolutionMasksInMemoryCache": _MOVING + "InMemoryCache",
    "Sam2ImageEmbeddingsCacheNullObject": _MOVING + "NoCache",
    "Sam2LowResolutionMasksCacheNullObject": _MOVING + "NoCache",
}
_OWLV2_CACHES = {
    "InMemoryOwlV2ClassEmbeddingsCache": _MOVING + "InMemoryCache",
    "InMemoryOwlV2ImageEmbeddingsCache": _MOVING + "InMemoryCache",
    "OwlV2ClassEmbeddingsCacheNullObject": _MOVING + "NoCache",
    "OwlV2ImageEmbeddingsCacheNullObject": _MOVING + "NoCache",
}

#: Module below `inference_models` ("" for itself) -> name -> import string.
MODULES: dict[str, dict[str, str]] = {
    "": {
        **_moving(
            "AutoModel", "BackendType", "ColorFormat", "Confidence", "InstancesRLEMasks", "PreProcessingOverrides",
            "Quantization",
        ),
        **_BOXES, **_INSTANCES, **_CLASSES, **_POINTS, **_EMBEDDINGS,
        "__version__": "lensmount.version:__version__",
    },
    "entities": _moving("ColorFormat", "Confidence"),
    "errors": {
        "BaseInferenceModelsError": _ERRORS + "LensmountError",
        "AssumptionError": _ERRORS + "LensmountError",
        "EnvironmentConfigurationError": _ERRORS + "MissingDependencyError",
        "ModelRuntimeError": _ERRORS + "BackendError",
        "ModelInputError": _ERRORS + "InputError",
        "ModelRetrievalError": _ERRORS + "SourceError",
        "UntrustedFileError": _ERRORS + "UnsafeFileError",
        "FileHashSumMissmatch": _ERRORS + "IntegrityError",
        "ModelNotFoundError": _ERRORS + "ModelNotFoundError",
        "UnauthorizedModelAccessError": _ERRORS + "AuthenticationError",
        "ForbiddenModelAccessError": _ERRORS + "AuthenticationError",
        "PaymentRequiredModelAccessError": _ERRORS + "SourceError",
        "UsagePausedModelAccessError": _ERRORS + "SourceError",
        "ModelPackageNegotiationError": _ERRORS + "NoPackageError",
        "NoModelPackagesAvailableError": _ERRORS + "NoPackageError",
        "UnknownBackendTypeError": _ERRORS + "UnknownBackendError",
        "ModelLoadingError": _ERRORS + "LensmountError",
        "CorruptedModelPackageError": _ERRORS + "ModelFileError",
        "ModelImplementationNotFoundError": _ERRORS + "UnsupportedModelError",
        "ForbiddenLocalCodePackageAccessError": _ERRORS + "UnsafeFileError",
        "InvalidModelInitParameterError": _ERRORS + "OptionError",
        "InvalidParameterError": _ERRORS + "OptionError",
        "MissingDependencyError": _ERRORS + "MissingDependencyError",
    },
    "weights_providers": {},
    "weights_providers.entities": _moving("Quantization"),
    "models": {},
    "models.auto_loaders": {},
    "models.auto_loaders.core": _moving("AutoModel"),
    "models.auto_loaders.entities": _moving("BackendType", "PreProcessingOverrides"),
    "models.base": {},
    "models.base.object_detection": _BOXES,
    "models.base.instance_segmentation": _INSTANCES,
    "models.base.classification": _CLASSES,
    "models.base.keypoints_detection": _POINTS,
    "models.base.embeddings": _EMBEDDINGS,
    "models.base.types": _moving("InstancesRLEMasks"),
    "models.sam2": {},
    "models.sam2.cache": _SAM2_CACHES,
    "models.sam2.entities": {
        **_moving("SAM2Prediction"), "SAM2ImageEmbeddings": _MOVING + "SAM2ImageEmbeddings",
    },
    "models.sam2.sam2_torch": {"SAM2Torch": _FAMILIES + "SAM2Torch"},
    "models.owlv2": {},
    "models.owlv2.cache": _OWLV2_CACHES,
    "models.owlv2.entities": _moving("ReferenceBoundingBox", "ReferenceExample"),
    "models.owlv2.owlv2_hf": {"OWLv2HF": _FAMILIES + "OWLv2HF"},
    "models.rfdetr": {},
    "models.rfdetr.rfdetr_object_detection_pytorch": {
        "RFDetrForObjectDetectionTorch": _FAMILIES + "RFDetrForObjectDetectionTorch",
    },
    "models.rfdetr.rfdetr_object_detection_onnx": {
        "RFDetrForObjectDetectionONNX": _FAMILIES + "RFDetrForObjectDetectionONNX",
    },
    "models.rfdetr.rfdetr_instance_segmentation_pytorch": {
        "RFDetrForInstanceSegmentationTorch": _FAMILIES + "RFDetrForInstanceSegmentationTorch",
    },
    "models.clip": {},
    "models.clip.clip_pytorch": {"ClipTorch": _FAMILIES + "ClipTorch"},
    "models.clip.clip_onnx": {"ClipOnnx": _FAMILIES + "ClipOnnx"},
    "models.perception_encoder": {},
    "models.perception_encoder.perception_encoder_pytorch": {
        "PerceptionEncoderTorch": _FAMILIES + "PerceptionEncoderTorch",
    },
    "models.yolov8": {},
    "models.yolov8.yolov8_object_detection_onnx": {
        "YOLOv8ForObjectDetectionOnnx": _FAMILIES + "YOLOv8ForObjectDetectionOnnx",
    },
    "models.yolov8.yolov8_instance_segmentation_onnx": {
        "YOLOv8ForInstanceSegmentationOnnx": _FAMILIES + "YOLOv8ForInstanceSegmentationOnnx",
    },
    "models.yolov8.yolov8_key_points_detection_onnx": {
        "YOLOv8ForKeyPointsDetectionOnnx": _FAMILIES + "YOLOv8ForKeyPointsDetectionOnnx",
    },
}  # fmt: skip
