"""The classes of single families: `SAM2Torch.from_pretrained(folder)` loads that family on that backend."""

from __future__ import annotations

from typing import Any

from lensmount_vision.moving import AutoModel


class Family:
    """A class that `from_pretrained` alone is called on; what that returns is a view of the model."""

    architecture: str
    backend: str | None = None
    task: str | None = None

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} is not instantiated: {type(self).__name__}.from_pretrained(folder)")

    @classmethod
    def from_pretrained(cls, model_name_or_path: Any, **options: Any) -> Any:
        """Loads a model of this family; options are those of `AutoModel.from_pretrained`.

        Raises:
            OptionError: A parameter that cannot be had.
            LensmountError: As `registry.load`; a model of another family or task is refused.
        """
        if cls.backend is not None:
            options.setdefault("backend", cls.backend)
        if cls.task is not None:
            options.setdefault("task", cls.task)
        view = AutoModel.from_pretrained(model_name_or_path, **options)
        if view.card.architecture != cls.architecture:
            from lensmount.errors import UnsupportedModelError

            view.close()
            raise UnsupportedModelError(
                f"{cls.__name__} cannot be made of {view.card.id!r}",
                found=view.card.architecture,
                expected=cls.architecture,
                fix="use AutoModel",
            )
        return view


class SAM2Torch(Family):
    """SAM 2 on torch."""

    architecture, backend = "sam2", "torch"


class OWLv2HF(Family):
    """OWLv2 on torch."""

    architecture, backend = "owlv2", "torch"


class RFDetrForObjectDetectionTorch(Family):
    """RF-DETR on torch."""

    architecture, backend, task = "rfdetr", "torch", "object-detection"

    @classmethod
    def from_checkpoint_file(cls, checkpoint_path: Any, **options: Any) -> Any:
        """Loads a training checkpoint."""
        return cls.from_pretrained(checkpoint_path, **options)


class RFDetrForObjectDetectionONNX(Family):
    """RF-DETR on onnxruntime."""

    architecture, backend, task = "rfdetr", "onnx", "object-detection"


class RFDetrForInstanceSegmentationTorch(Family):
    """RF-DETR with masks on torch."""

    architecture, backend, task = "rfdetr", "torch", "instance-segmentation"

    @classmethod
    def from_checkpoint_file(cls, checkpoint_path: Any, **options: Any) -> Any:
        """Loads a training checkpoint."""
        return cls.from_pretrained(checkpoint_path, **options)


class ClipTorch(Family):
    """CLIP on torch."""

    architecture, backend = "clip", "torch"


class ClipOnnx(Family):
    """CLIP on onnxruntime."""

    architecture, backend = "clip", "onnx"


class PerceptionEncoderTorch(Family):
    """Perception Encoder on torch."""

    architecture, backend = "perception_encoder", "torch"


class YOLOv8ForObjectDetectionOnnx(Family):
    """YOLO on onnxruntime."""

    architecture, backend, task = "yolo", "onnx", "object-detection"


class YOLOv8ForInstanceSegmentationOnnx(Family):
    """YOLO with masks on onnxruntime."""

    architecture, backend, task = "yolo", "onnx", "instance-segmentation"


class YOLOv8ForKeyPointsDetectionOnnx(Family):
    """YOLO with keypoints on onnxruntime."""

    architecture, backend, task = "yolo", "onnx", "keypoint-detection"
