"""What the peer's configuration files mean: geometry, settings, batches, recommended options."""

from __future__ import annotations

import pytest

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount.specs import BatchPolicy, Preprocess
from lensmount_roboflow.packages import config as mapping
from lensmount_roboflow.packages import schema


def inference_config(**network):
    given = {
        "training_input_size": {"height": 480, "width": 640},
        "dynamic_spatial_size_supported": False,
        "color_mode": "rgb",
        "resize_mode": "letterbox",
        "input_channels": 3,
        "scaling_factor": 255,
    }
    return {"network_input": {k: v for k, v in {**given, **network}.items() if v is not ...}}


def read(data):
    return schema.parse(schema.InferenceConfig, data, "inference_config.json")


def preprocess(**network):
    return mapping.preprocess_of(read(inference_config(**network)), "inference_config.json")


def test_defaults_are_the_peers():
    assert preprocess() == Preprocess(
        size=(480, 640), resize="letterbox", rounding="truncate", padding_value=0, scale=1 / 255, color="rgb"
    )


@pytest.mark.parametrize(
    ("mode", "ours"),
    [
        ("stretch", "stretch"),
        ("letterbox", "letterbox"),
        ("letterbox-reflect-edges", "letterbox-reflect"),
        ("center-crop", "center-crop"),
        ("fit-longer-edge", "fit"),
    ],
)
def test_resize_modes(mode, ours):
    assert preprocess(resize_mode=mode, padding_value=114).resize == ours


def test_values_of_the_network_input():
    done = preprocess(
        color_mode="bgr",
        padding_value=127,
        scaling_factor=None,
        normalization=[[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]],
    )
    assert (done.color, done.padding_value, done.scale) == ("bgr", 127, 1.0)
    assert done.mean == (0.485, 0.456, 0.406)
    assert done.std == (0.229, 0.224, 0.225)
    assert preprocess(scaling_factor=...).scale == 1.0


def test_what_happens_before_the_resize():
    data = inference_config()
    data["image_pre_processing"] = {
        "auto-orient": {"enabled": True},
        "static-crop": {"enabled": True, "x_min": 10, "x_max": 90, "y_min": 20, "y_max": 100},
        "contrast": {"enabled": True, "type": "Adaptive Equalization"},
        "grayscale": {"enabled": True},
    }
    done = mapping.preprocess_of(read(data), "f")
    assert done.static_crop == (10, 20, 90, 100)
    assert (done.contrast, done.grayscale, done.channels) == ("adaptive-equalization", True, 3)
    assert ("auto_orient", True) in mapping.settings_of(read(data))
    for step in ("static-crop", "contrast", "grayscale"):
        data["image_pre_processing"][step]["enabled"] = False
    off = mapping.preprocess_of(read(data), "f")
    assert (off.static_crop, off.contrast, off.grayscale) == (None, None, False)


@pytest.mark.parametrize(
    ("given", "ours"),
    [("Contrast Stretching", "contrast-stretching"), ("Histogram Equalization", "histogram-equalization")],
)
def test_contrast_types(given, ours):
    data = inference_config()
    data["image_pre_processing"] = {"contrast": {"enabled": True, "type": given}}
    assert mapping.preprocess_of(read(data), "f").contrast == ours


def test_dynamic_sizes():
    divisible = {"type": "pad-to-be-divisible", "value": 32}
    done = preprocess(dynamic_spatial_size_supported=True, dynamic_spatial_size_mode=divisible)
    assert (done.size, done.divisible_by) == ((480, 640), 32)
    any_size = {"dynamic_spatial_size_supported": True, "dynamic_spatial_size_mode": {"type": "any-size"}}
    assert preprocess(**any_size).size == (480, 640)
    free = preprocess(**any_size, training_input_size=...)
    assert (free.size, free.resize) == (None, "none")
    assert ("dynamic_size", "any-size") in mapping.settings_of(read(inference_config(**any_size)))
    # the mode says nothing where dynamic sizes are not supported
    assert preprocess(dynamic_spatial_size_mode=divisible).divisible_by is None


def test_dataset_size_is_kept():
    config = read(inference_config(dataset_version_resize_dimensions={"height": 512, "width": 1024}))
    assert dict(mapping.settings_of(config))["dataset_size"] == (512, 1024)


def test_post_processing_settings():
    data = inference_config()
    data["post_processing"] = {"type": "nms", "fused": False}
    assert mapping.settings_of(read(data)) == (("fused_nms", False),)
    parameters = {"max_detections": 300, "confidence_threshold": 0.1, "iou_threshold": 0.7, "class_agnostic": 1}
    data["post_processing"] = {"type": "nms", "fused": True, "nms_parameters": parameters}
    assert mapping.settings_of(read(data)) == (
        ("fused_nms", True),
        ("nms_max_detections", 300),
        ("nms_confidence", 0.1),
        ("nms_iou_threshold", 0.7),
        ("nms_class_agnostic", True),
    )
    data["post_processing"] = {"type": "softmax", "fused": True}
    assert mapping.settings_of(read(data)) == (("activation", "softmax"), ("fused_activation", True))


def test_removed_classes():
    data = inference_config()
    data["class_names_operations"] = [{"type": "class_name_removal", "class_name": "background"}]
    assert mapping.settings_of(read(data)) == (("removed_classes", ("background",)),)


def test_batch_policies():
    model = schema.parse(schema.ModelConfig, {"static_batch_size": 4}, "f")
    dynamic = schema.parse(schema.ModelConfig, {"dynamic_batch_size_supported": True}, "f")
    forward = schema.parse(schema.ForwardPass, {"static_batch_size": 1}, "f")
    bounded = schema.parse(schema.ForwardPass, {"max_dynamic_batch_size": 8}, "f")
    assert mapping.batch_of(forward, dynamic) == BatchPolicy(static=1)
    assert mapping.batch_of(bounded, model) == BatchPolicy(maximum=8)
    assert mapping.batch_of(None, model) == BatchPolicy(static=4)
    assert mapping.batch_of(None, dynamic) == BatchPolicy()
    assert mapping.batch_of(None, None) is None


def test_engine():
    fixed = schema.parse(schema.TrtConfig, {"static_batch_size": 2, "dynamic_batch_size_min": None}, "f")
    batch, settings, needs = mapping.engine_of(fixed, "f")
    assert (batch, settings, needs.devices) == (BatchPolicy(static=2), (), ("cuda",))
    sizes = {"dynamic_batch_size_min": 1, "dynamic_batch_size_opt": 4, "dynamic_batch_size_max": 16}
    batch, settings, _ = mapping.engine_of(schema.parse(schema.TrtConfig, sizes, "f"), "f")
    assert (batch, settings) == (BatchPolicy(maximum=16), (("batch_range", (1, 4, 16)),))
    for wrong in ({}, {**sizes, "dynamic_batch_size_opt": 32}):
        with pytest.raises(ModelFileError, match="dynamic_batch_size_min"):
            mapping.engine_of(schema.parse(schema.TrtConfig, wrong, "f"), "f")


def test_recommended_parameters():
    given = {"confidence": 0.4, "perClassConfidence": {"dog": 0.3, "cat": 1}}
    parameters = schema.parse(schema.RecommendedParameters, given, "f")
    assert mapping.recommended_of(parameters) == (
        ("confidence", 0.4),
        ("per_class_confidence", (("dog", 0.3), ("cat", 1.0))),
    )
    assert mapping.recommended_of(schema.parse(schema.RecommendedParameters, {"confidence": None}, "f")) == ()
    assert mapping.recommended_of(None) == ()


@pytest.mark.parametrize(
    ("architecture", "task", "backend", "expected"),
    [
        ("yolov8", "object-detection", "onnx", ("yolo", "object-detection", "onnx")),
        ("yolov11", "instance-segmentation", "trt", ("yolo", "instance-segmentation", "engine")),
        ("yolov9", "object-detection", "torch-script", ("yolo", "object-detection", "torchscript")),
        ("yolov10", "object-detection", "onnx", ("yolo", "object-detection", "onnx")),
        ("rfdetr", "instance-segmentation", "torch", ("rfdetr", "instance-segmentation", "torch")),
        ("sam2", "interactive-instance-segmentation", "torch", ("sam2", "interactive-segmentation", "torch")),
        ("sam2", None, "torch", ("sam2", "interactive-segmentation", "torch")),
        ("clip", "embedding", "onnx", ("clip", "embedding", "onnx")),
        ("perception-encoder", "embedding", "torch", ("perception_encoder", "embedding", "torch")),
        ("owlv2", "open-vocabulary-object-detection", "hugging-face", ("owlv2", "open-vocabulary-detection", "torch")),
    ],
)
def test_names(architecture, task, backend, expected):
    identity = mapping.identify_names(architecture, task, backend, "f")
    assert (identity.architecture, identity.task, identity.format) == expected


def test_families_and_layouts():
    assert dict(mapping.identify_names("yolov11", None, "onnx", "f").settings)["family"] == "yolo11"
    assert dict(mapping.identify_names("owlv2", None, "hugging-face", "f").settings)["layout"] == "hugging-face"


#: Every architecture and task of inference-models 0.39.6 that nothing here runs.
UNRUN = """
cosmos-3-edge vlm|cosmos-3-edge-world world-model|cosmos3-edge action-recognition|cosmos3-edge vlm
deep-lab-v3-plus semantic-segmentation|depth-anything-v2 depth-estimation|depth-anything-v3 depth-estimation
dinov3_probe classification|dinov3_probe multi-label-classification|doctr structured-ocr|easy-ocr structured-ocr
florence-2 vlm|foundad classification|gemma-4 vlm|glm-ocr vlm|grounding-dino open-vocabulary-object-detection
l2cs-net gaze-detection|mage-vl vlm|moondream2 vlm|paligemma vlm|paligemma-2 vlm|patchcore classification
pp-ocrv6-det object-detection|pp-ocrv6-rec text-only-ocr|qwen25vl vlm|qwen3_5 vlm|qwen3_8 vlm|qwen3vl vlm
resnet classification|resnet multi-label-classification|rfdetr keypoint-detection|rfdetr semantic-segmentation
rfdetr-keypoint-stage2 keypoint-detection|rfdetr-keypoint-two-stage keypoint-detection
roboflow-instant object-detection|sam interactive-instance-segmentation|sam2video instance-segmentation
sam3 instance-segmentation|sam3 interactive-instance-segmentation|sam3trackervideo instance-segmentation
sam3video instance-segmentation|segment-anything-2-rt instance-segmentation|smolvlm-v2 vlm|tr-ocr text-only-ocr
vit classification|vit multi-label-classification|vjepa2-1-vitb-384 action-recognition|vjepa2_1 action-recognition
yolact instance-segmentation|yolo26 depth-estimation|yolo26 semantic-segmentation|yololite object-detection
yolonas object-detection|yolov5 instance-segmentation|yolov5 object-detection|yolov7 instance-segmentation
"""


@pytest.mark.parametrize("name", UNRUN.strip().replace("\n", "|").split("|"))
@pytest.mark.parametrize("backend", ["onnx", "torch", "hugging-face", "custom"])
def test_what_is_not_run_is_refused_by_name_before_anything_else(name, backend):
    """A folder of such a model says what it is and what to do instead, whatever its backend."""
    architecture, task = name.split()
    with pytest.raises(UnsupportedModelError) as caught:
        mapping.identify_names(architecture, task, backend, "f")
    assert architecture in str(caught.value) and caught.value.fix
    assert "does not run" in caught.value.problem


def test_unknown_names_are_refused():
    with pytest.raises(UnsupportedModelError, match="does not know") as unknown:
        mapping.identify_names("brand-new", "vlm", "hugging-face", "f")
    assert "brand-new" in str(unknown.value)
    with pytest.raises(UnsupportedModelError, match="architecture") as caught:
        mapping.identify_names("florence-2", "vlm", "hugging-face", "f")
    assert "florence-2" in str(caught.value)
    with pytest.raises(UnsupportedModelError, match="backend"):
        mapping.identify_names("yolov8", "object-detection", "ultralytics", "f")
    with pytest.raises(ModelFileError, match="backend_type"):
        mapping.identify_names("yolov8", "object-detection", None, "f")


@pytest.mark.parametrize("keys", [{"model_module": "model.py", "model_class": "M"}, {"backend_type": "custom"}])
def test_code_is_refused(keys):
    config = schema.parse(schema.ModelConfig, {"model_architecture": "yolov8", "backend_type": "onnx", **keys}, "f")
    with pytest.raises(UnsafeFileError, match="code") as caught:
        mapping.identify(config, "f")
    assert "plugin" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("network", "key"),
    [
        ({"color_mode": "gbr"}, "network_input.color_mode"),
        ({"color_mode": ...}, "network_input.color_mode"),
        ({"resize_mode": "squash"}, "network_input.resize_mode"),
        ({"padding_value": 256}, "network_input.padding_value"),
        ({"scaling_factor": 0}, "network_input.scaling_factor"),
        ({"input_channels": True}, "network_input.input_channels"),
        ({"training_input_size": {"height": "640", "width": 640}}, "network_input.training_input_size.height"),
        ({"training_input_size": {"height": -1, "width": 640}}, "network_input.training_input_size.height"),
        ({"training_input_size": None}, "network_input.training_input_size"),
        ({"normalization": [[0.5], [0.5]]}, "network_input.normalization"),
        ({"normalization": [[0.5, 0.5, 0.5], [0.5, 0, 0.5]]}, "network_input.normalization"),
        ({"normalization": [[float("nan")] * 3, [1.0] * 3]}, "network_input.normalization"),
        ({"dynamic_spatial_size_mode": {"type": "other"}}, "network_input.dynamic_spatial_size_mode"),
    ],
)
def test_malformed_keys_are_named(network, key):
    with pytest.raises(ModelFileError) as caught:
        preprocess(**network)
    assert key in caught.value.problem
    assert caught.value.found
    assert caught.value.expected


def test_crops_must_have_an_area():
    data = inference_config()
    data["image_pre_processing"] = {"static-crop": {"enabled": True, "x_min": 9, "x_max": 9, "y_min": 0, "y_max": 9}}
    with pytest.raises(ModelFileError, match="static-crop"):
        mapping.preprocess_of(read(data), "f")


def test_two_channels_are_not_supported():
    with pytest.raises(UnsupportedModelError, match="input_channels"):
        preprocess(input_channels=4)


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_something_else_than_an_object(data):
    with pytest.raises(ModelFileError, match="JSON object"):
        read(data)


def test_unknown_keys_are_tolerated():
    data = inference_config(brand_new=1)
    data["model_initialization"] = {"more": [1]}
    assert read(data).network_input.color_mode == "rgb"


def test_class_names():
    assert mapping.classes_of("  person \r\n\n\tdog\n  \ncat", "f") == ("person", "dog", "cat")
    with pytest.raises(ModelFileError, match="no class"):
        mapping.classes_of("\n  \n", "f")
