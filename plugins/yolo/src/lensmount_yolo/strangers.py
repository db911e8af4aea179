"""Detectors near the YOLOs that are run: the names that tell them, and what runs them.

The names are those that the exporters and repositories of these models give. Graphs that only their outputs' shapes
tell are `recognise`'s.
"""

from __future__ import annotations

from lensmount_reading import Stranger

ANCHORS = (
    "train or convert it as YOLOv5u, which is run here, or run the graph with onnxruntime and its own repository's "
    "post-processing"
)
SUPPRESSED = (
    "export it without that suppression (raw predictions, as ultralytics' exports are by default), or with "
    "`lensmount export MODEL --to onnx --nms embedded`"
)

STRANGERS = (
    Stranger(
        what="a graph with TensorRT's EfficientNMS in it",
        runs_with=SUPPRESSED,
        operators=("EfficientNMS", "BatchedNMS"),
    ),
    Stranger(
        what="a graph with the outputs of TensorRT's EfficientNMS",
        runs_with=SUPPRESSED,
        outputs=(r"num_(?:dets|detections)", r"(?:det|detection)_boxes", r"(?:det|detection)_scores"),
    ),
    Stranger(
        what="a YOLO-NAS graph with suppression in it",
        runs_with="super-gradients, which wrote it; a graph without suppression is not run here either",
        outputs=("graph2_(?:flat|num)_predictions",),
    ),
    Stranger(
        what="a YOLO-World",
        runs_with="ultralytics runs it; its exports to ONNX, with the classes fixed, are run here",
        tensors=(r"model\.\d+\.cv4\.\d+\.(?:norm\.weight|logit_scale)",),
    ),
    Stranger(
        what="an original YOLOv5 or YOLOv7, whose head is built on anchor boxes",
        runs_with=ANCHORS,
        tensors=(r"model\.\d+\.anchors?(?:_grid)?", r"model\.\d+\.m\.0\.weight"),
    ),
    Stranger(
        what="a YOLOX",
        runs_with="its authors' yolox, or its graph with onnxruntime; YOLO v8 and later are run here",
        tensors=(r"head\.obj_preds\.0\.weight", r"head\.cls_preds\.0\.weight"),
    ),
    Stranger(
        what="a torchvision detector as a graph",
        runs_with="run it with onnxruntime; YOLO and RF-DETR do the same work and are run here",
        outputs=("boxes", "labels", "scores"),
    ),
)
