"""Open-vocabulary detectors that are not run here: the tensors' names that tell them, and what runs them."""

from __future__ import annotations

from lensmount_reading import Stranger

STRANGERS = (
    Stranger(
        what="an OWL-ViT, which came before OWLv2",
        runs_with="transformers (OwlViTForObjectDetection) runs it; OWLv2 does the same work and is run here",
        tensors=(r"class_head\.dense0\.weight", r"box_head\.dense0\.weight"),
        without=(r"objectness_head\..+",),
    ),
    Stranger(
        what="a Grounding DINO",
        runs_with="transformers (AutoModelForZeroShotObjectDetection), which runs it",
        tensors=(r"text_backbone\.embeddings\..+", r"input_proj_vision\..+"),
    ),
    Stranger(
        what="a Grounding DINO in its authors' layout",
        runs_with="its authors' groundingdino, or transformers with the converted weights",
        tensors=(r"feat_map\.weight", r"bert\.embeddings\.word_embeddings\.weight"),
    ),
    Stranger(
        what="an open-vocabulary detector as a graph, as other tools write it",
        runs_with="load the model's weights: `lensmount export MODEL --to onnx` writes the graphs that are run here",
        inputs=("pixel_values", "input_ids"),
        outputs=("pred_boxes",),
    ),
)
