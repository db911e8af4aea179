"""Small SAM 2 networks whose weights follow from their keys alone, in a Hugging Face folder.

Only the image encoder can be small: the decoder's and the memory's sizes are fixed. `tests/goldens/make_sam2_tiny.py`
writes what transformers answers with these weights.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

SIDE = 128
TRUNK = {
    "hidden_size": 16,
    "blocks_per_stage": [1, 2, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128],
    "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [8, 4, 14, 7],
    "global_attention_blocks": [4],
    "window_positional_embedding_background_size": [7, 7],
    "image_size": [SIDE, SIDE],
}
GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
KEYS = GOLDENS / "sam2_tiny_keys.json"
OUTPUTS = GOLDENS / "sam2_tiny.npz"


def config():
    """What `config.json` holds of the networks' sizes."""
    cells = SIDE // 16
    return {
        "model_type": "sam2_video",
        "image_size": SIDE,
        "vision_config": {
            "model_type": "sam2_vision_model",
            "backbone_config": {"model_type": "sam2_hiera_det_model", **TRUNK},
            "backbone_channel_list": [128, 64, 32, 16],
            "backbone_feature_sizes": [[4 * cells] * 2, [2 * cells] * 2, [cells] * 2],
        },
        "prompt_encoder_config": {"image_size": SIDE},
        "memory_attention_rope_feat_sizes": [cells, cells],
    }


def noise(key, shape):
    """Weights of one tensor: of a size that keeps activations near 1."""
    rng = np.random.Generator(np.random.Philox(zlib.crc32(key.encode())))
    values = rng.standard_normal(shape, np.float32)
    if key.endswith("shared_embedding.positional_embedding") or key.startswith("shared_image_embedding"):
        rng = np.random.Generator(np.random.Philox(1))  # both names stand for one tensor
        return rng.standard_normal(shape, np.float32)
    if "norm" in key and key.endswith("weight"):
        return 1 + 0.1 * values
    if key.endswith(".scale"):
        return 0.5 + 0.1 * values
    if key == "mask_decoder.pred_obj_score_head.proj_out.bias":
        return values + 5  # in sight: the logits of an object that is not say nothing
    if len(shape) < 2 or key.endswith("bias"):
        return 0.1 * values
    return values / np.sqrt(max(np.prod(shape[1:]), 4)) * (1 if "embed" not in key else 4)


def weights():
    """Every tensor under transformers' key."""
    return {key: noise(key, shape).astype(np.float32) for key, shape in json.loads(KEYS.read_text()).items()}


def frames(count=5):
    """uint8 `(SIDE, SIDE, 3)` RGB pictures: blobs that move."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    made = []
    for index in range(count):
        blob = np.exp(-((rows - 60) ** 2 + (columns - 30 - 8 * index) ** 2) / 400)
        other = np.exp(-((rows - 90 + 4 * index) ** 2 + (columns - 90) ** 2) / 200)
        made.append(np.stack([255 * blob, 255 * other, 2 * (rows % 64) + 0 * columns], axis=2).astype(np.uint8))
    return made


def write_folder(folder):
    """Writes `config.json` and `model.safetensors`."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config()))
    save_file(weights(), str(folder / "model.safetensors"))
    return folder


def write_official(path):
    """Writes the same weights as an official checkpoint; its trunk is of no released size."""
    import torch

    from lensmount_sam2.hf_keys import official_key

    named = {}
    for key, value in weights().items():
        name = official_key(key)
        if name == "sam_prompt_encoder.point_embed.weight":
            for index, row in enumerate(value):
                named[f"sam_prompt_encoder.point_embeddings.{index}.weight"] = torch.from_numpy(row[None])
        elif name is not None:
            named[name] = torch.from_numpy(value)
    torch.save({"model": named}, path)
    return path
