"""Detectors with queries that are no RF-DETR: the names that tell them, and what runs them.

The names are those that transformers 5, the authors' repositories and their exporters give.
"""

from __future__ import annotations

from lensmount_reading import Stranger

_RUNTIME = "run it with onnxruntime; RF-DETR does the same work and is run here"

STRANGERS = (
    Stranger(
        what="a graph of RT-DETR, D-FINE or DEIM that is told the pictures' sizes",
        runs_with=_RUNTIME,
        inputs=("images", "orig_target_sizes"),
    ),
    Stranger(
        what="a graph of PaddleDetection that is told the pictures' scale",
        runs_with="run it with onnxruntime or PaddlePaddle; YOLO and RF-DETR do the same work and are run here",
        inputs=("image", "scale_factor"),
    ),
    Stranger(
        what="a graph of MMDetection (mmdeploy), with boxes of five columns",
        runs_with="run it with mmdeploy or onnxruntime; YOLO and RF-DETR do the same work and are run here",
        outputs=("dets", "labels"),
    ),
    Stranger(
        what="a graph of a DETR in transformers' layout",
        runs_with=_RUNTIME,
        outputs=("logits", "pred_boxes"),
    ),
    Stranger(
        what="an RT-DETR or D-FINE",
        runs_with="transformers (AutoModelForObjectDetection) or its authors' code runs it; RF-DETR is run here",
        tensors=(r"denoising_class_embed\.weight", r"enc_score_head\..+|decoder\.enc_score_head\..+"),
    ),
    Stranger(
        what="a DETR that is no RF-DETR",
        runs_with="transformers (AutoModelForObjectDetection) runs it; RF-DETR is run here",
        tensors=(r"bbox_predictor\.layers\.0\.weight", r"class_labels_classifier\..+"),
    ),
    Stranger(
        what="a DETR in its authors' layout",
        runs_with="its authors' code, or transformers with the converted weights; RF-DETR is run here",
        tensors=(r"class_embed\.weight", r"bbox_embed\.layers\.0\.weight", r"query_embed\.weight"),
    ),
)
