"""Two-tower models near CLIP that are not run here, and halves of CLIPs: the names that tell them, and what runs them.

The names are those that transformers 5 and open_clip 3 give the tensors.
"""

from __future__ import annotations

from lensmount_reading import Stranger

_OPEN_CLIP = "open_clip (open_clip_torch), which runs it"
_BOTH = "the whole CLIP, image and text towers in one file or folder, is run here"
_PAIR = "load the model's weights: `lensmount export MODEL --to onnx` writes the pair of graphs that is run here"
_TEXT = r"(?:text\.)?token_embedding\.weight"

STRANGERS = (
    Stranger(
        what="a SigLIP (sigmoid loss, attention pooling)",
        runs_with="transformers (AutoModel), which runs it",
        tensors=(r"vision_model\.head\.probe",),
    ),
    Stranger(
        what="the image tower of a SigLIP alone",
        runs_with="transformers (SiglipVisionModel), which runs it",
        tensors=(r"head\.probe", r"head\.attention\.in_proj_weight"),
    ),
    Stranger(
        what="a SigLIP in open_clip's layout",
        runs_with=_OPEN_CLIP,
        tensors=(r"visual\.trunk\.attn_pool\.latent", "logit_bias"),
    ),
    Stranger(
        what="a MobileCLIP",
        runs_with=_OPEN_CLIP,
        tensors=(r"visual\.trunk\.stem\.\d+\.conv_(?:kxk|scale)\..+|visual\.trunk\.stem\.\d+\.reparam_conv\..+",),
    ),
    Stranger(
        what="a MobileCLIP in Apple's layout",
        runs_with="Apple's mobileclip, or open_clip with the converted weights",
        tensors=(r"image_encoder\.model\.patch_embed\.\d+\..+", r"text_encoder\.embedding_layer\.weight"),
    ),
    Stranger(
        what="a CoCa (it writes captions)",
        runs_with=_OPEN_CLIP,
        tensors=(r"visual\.attn_pool\.query", r"text_decoder\.ln_final\.weight"),
    ),
    Stranger(
        what="a CLIP-like model whose image tower is one of timm's",
        runs_with=_OPEN_CLIP,
        tensors=(r"visual\.trunk\..+", _TEXT),
    ),
    Stranger(
        what="a CLIP-like model whose text tower is one of transformers'",
        runs_with=_OPEN_CLIP,
        tensors=(
            r"visual\.(?:class_embedding|attnpool\.c_proj\.weight|trunk\..+)",
            r"text\.transformer\.embeddings\..+",
        ),
    ),
    Stranger(
        what="the image tower of a Perception Encoder alone",
        runs_with="its authors' perception_models; the whole PE-Core, with its text tower, is run here",
        tensors=(r"attn_pool\.probe", r"class_embedding|conv1\.weight"),
        without=(_TEXT,),
    ),
    Stranger(
        what="a CLIPSeg",
        runs_with="transformers (CLIPSegForImageSegmentation), which runs it",
        tensors=(r"decoder\.film_mul\.weight", r"clip\.visual_projection\.weight"),
    ),
    Stranger(
        what="the image tower of a CLIP alone",
        runs_with=f"transformers (CLIPVisionModelWithProjection) runs it; {_BOTH}",
        tensors=(r"(?:vision_model\.)?post_layernorm\.weight", r"(?:vision_model\.)?embeddings\.class_embedding"),
        without=(r"text_model\.final_layer_norm\.weight", r"(?:class|box)_head\..+", r"text_projection\.weight"),
    ),
    Stranger(
        what="the text tower of a CLIP alone",
        runs_with=f"transformers (CLIPTextModelWithProjection) runs it; {_BOTH}",
        tensors=(r"(?:text_model\.)?final_layer_norm\.weight", r"(?:text_model\.)?embeddings\.token_embedding\.weight"),
        without=(r"(?:vision_model\.)?post_layernorm\.weight", r"(?:class|box)_head\..+"),
    ),
    Stranger(
        what="the image tower of a CLIP alone",
        runs_with=f"open_clip runs it; {_BOTH}",
        tensors=(r"(?:visual\.)?class_embedding", r"(?:visual\.)?ln_pre\.weight"),
        without=(_TEXT,),
    ),
    Stranger(
        what="the image tower of a CLIP alone",
        runs_with=f"open_clip runs it; {_BOTH}",
        tensors=(r"(?:visual\.)?attnpool\.c_proj\.weight",),
        without=(_TEXT,),
    ),
    Stranger(
        what="the text tower of a CLIP alone",
        runs_with=f"open_clip runs it; {_BOTH}",
        tensors=(_TEXT, r"ln_final\.weight", "text_projection(?:\\.weight)?"),
        without=(r"visual\..+",),
    ),
    Stranger(
        what="both towers of a CLIP or SigLIP in one graph, as other tools write it",
        runs_with=_PAIR,
        inputs=("pixel_values", "input_ids"),
        outputs=(r"logits_per_image|image_embeds",),
    ),
    Stranger(
        what="one tower of a CLIP or SigLIP as a graph",
        runs_with=_PAIR,
        inputs=(r"pixel_values|input_ids",),
        outputs=(r"image_embeds|text_embeds|pooler_output",),
    ),
)
