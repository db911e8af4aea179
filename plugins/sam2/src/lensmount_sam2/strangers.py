"""Models near SAM 2 that are not run here: the names that tell them, and what runs them.

The names are those of the authors' checkpoints and of transformers 5. The special kinds come first: all of them share
SAM's mask decoder.
"""

from __future__ import annotations

from lensmount_reading import Stranger

_DECODER = r"(?:sam_)?mask_decoder\.iou_token\.weight"
_SAM2 = "SAM 2 and 2.1 do the same work and are run here"
_WEIGHTS = "load the weights of a SAM 2 or 2.1 (.pt or safetensors), which are run here"

STRANGERS = (
    Stranger(
        what="an EdgeTAM",
        runs_with=f"transformers (EdgeTamModel, EdgeTamVideoModel) or its authors' code runs it; {_SAM2}",
        tensors=(
            _DECODER,
            r"vision_encoder\.backbone\.timm_model\..+|image_encoder\.trunk\.body\..+|spatial_perceiver\..+",
        ),
    ),
    Stranger(
        what="a SAM 3",
        runs_with=f"transformers (Sam3Model) or its authors' code runs it; {_SAM2}",
        tensors=(r"presence_token\.weight|presence_head\..+|detector\.transformer\..+",),
    ),
    Stranger(
        what="the tracker of a SAM 3",
        runs_with=f"transformers (Sam3TrackerModel) runs it; {_SAM2}",
        tensors=(_DECODER, r"vision_encoder\.neck\.fpn_layers\..+"),
    ),
    Stranger(
        what="an HQ-SAM",
        runs_with=f"transformers (SamHQModel) or its authors' code runs it; {_SAM2}",
        tensors=(_DECODER, r"mask_decoder\.(?:hq_token|hf_token)\.weight"),
    ),
    Stranger(
        what="a MobileSAM",
        runs_with=f"its authors' mobile_sam runs it; {_SAM2}",
        tensors=(_DECODER, r"image_encoder\.layers\.0\..+"),
    ),
    Stranger(
        what="a SAM of the first generation",
        runs_with=f"transformers (SamModel) or its authors' segment_anything runs it; {_SAM2}",
        tensors=(
            _DECODER,
            r"(?:image_encoder\.neck|vision_encoder\.neck\.conv1|vision_encoder\.neck\.layer_norm1)\..+",
        ),
        without=(r"(?:sam_)?mask_decoder\.obj_score_token\.weight",),
    ),
    Stranger(
        what="part of a SAM or SAM 2: the network that takes prompts, as a graph",
        runs_with=_WEIGHTS,
        inputs=(r"point_coords|input_points|prompt_points", r"point_labels|input_labels|prompt_labels"),
    ),
    Stranger(
        what="part of a SAM or SAM 2: the network that looks at pictures, as a graph",
        runs_with=_WEIGHTS,
        outputs=(r"image_embeddings?|image_embed|image_embeddings\.\d+|high_res_feats_0",),
    ),
)
