"""What inference-models has packages of and nothing here runs: refused by name, with what to do instead."""

from __future__ import annotations

OTHER = "inference-models runs it; to run it here, write a plugin for it"
_VLM = ("a vision-language model", OTHER)
_ANCHORS = ("a detector with anchors, whose grids the graph leaves to the caller", "train it anew as YOLOv8 or later")
_TEXT = ("a reader of text", OTHER)
_TRACK = ("follows objects through a video", "load a SAM 2 (`sam2.1/hiera_t`): its `tracker()` does that")
#: Architectures of that library (0.39.6) that nothing here runs: what they are, and what to do instead.
STRANGERS: dict[str, tuple[str, str]] = {
    "resnet": ("a classifier", "train a YOLO classifier, or compare with names by a CLIP: `model.classify`"),
    "vit": ("a classifier", "train a YOLO classifier, or compare with names by a CLIP: `model.classify`"),
    "dinov3_probe": ("a classifier on DINOv3", "train a YOLO classifier, or compare with names by a CLIP"),
    "yolov5": _ANCHORS,
    "yolov7": _ANCHORS,
    "yolact": ("instance segmentation with prior boxes", "train it anew as a YOLO or an RF-DETR with masks"),
    "yolonas": ("a detector", "train it anew as YOLOv8 or later, or as an RF-DETR"),
    "yololite": ("a detector", "train it anew as YOLOv8 or later, or as an RF-DETR"),
    "deep-lab-v3-plus": ("semantic segmentation, one class per pixel", OTHER),
    "depth-anything-v2": ("depth estimation", OTHER),
    "depth-anything-v3": ("depth estimation", OTHER),
    "grounding-dino": ("finds what words say", "load an OWLv2 (`owlv2/base-patch16-ensemble`) and call it with words"),
    "roboflow-instant": (
        "example boxes over an OWLv2",
        "load an OWLv2 and give it the examples: `model.fit(training_data)`",
    ),
    "rfdetr-keypoint-stage2": ("keypoints of RF-DETR's boxes", OTHER),
    "rfdetr-keypoint-two-stage": ("two models, one after the other", OTHER),
    "sam": ("SAM of the first generation", "load a SAM 2 (`sam2.1/hiera_t`), which answers the same prompts"),
    "sam2video": _TRACK,
    "segment-anything-2-rt": _TRACK,
    "sam3": ("SAM 3", "load a SAM 2 for points and boxes, an OWLv2 for words"),
    "sam3video": ("SAM 3", "load a SAM 2 for points and boxes, an OWLv2 for words"),
    "sam3trackervideo": _TRACK,
    "foundad": ("anomaly detection", OTHER),
    "patchcore": ("anomaly detection", OTHER),
    "l2cs-net": ("gaze detection", OTHER),
    "vjepa2_1": ("action recognition", OTHER),
    "vjepa2-1-vitb-384": ("action recognition", OTHER),
    **dict.fromkeys(
        ("cosmos-3-edge", "cosmos-3-edge-world", "cosmos3-edge", "florence-2", "gemma-4", "mage-vl", "moondream2",
         "paligemma", "paligemma-2", "qwen25vl", "qwen3_5", "qwen3_8", "qwen3vl", "smolvlm-v2"),
        _VLM,
    ),
    **dict.fromkeys(("doctr", "easy-ocr", "glm-ocr", "pp-ocrv6-det", "pp-ocrv6-rec", "tr-ocr"), _TEXT),
}  # fmt: skip
#: Tasks that our architectures run.
TASKS_OF: dict[str, tuple[str, ...]] = {
    "yolo": (
        "object-detection", "instance-segmentation", "keypoint-detection", "oriented-object-detection",
        "classification",
    ),
    "rfdetr": ("object-detection", "instance-segmentation"),
    "sam2": ("interactive-segmentation", "video-segmentation"),
    "clip": ("embedding",),
    "perception_encoder": ("embedding",),
    "owlv2": ("open-vocabulary-detection",),
}  # fmt: skip
