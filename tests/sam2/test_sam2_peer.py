"""The same weights through `inference-models`, where it and Meta's `sam2` are installed (they need torchvision)."""

from __future__ import annotations

import json
import shutil
from importlib import metadata

import numpy as np
import pytest


def installed(name: str) -> bool:
    """Whether a distribution is there."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


PROMPTS = [
    {"point_coordinates": [[600, 400]], "point_labels": [1]},
    {"point_coordinates": [[600, 400], [100, 120]], "point_labels": [1, 0]},
    {"boxes": [300, 200, 900, 800]},
    {"boxes": [50, 60, 400, 700], "point_coordinates": [[200, 300]], "point_labels": [1]},
]


@pytest.mark.parametrize(
    ("name", "version"), [("sam2_hiera_tiny", "sam2_hiera_t"), ("sam2.1_hiera_tiny", "sam2.1_hiera_t")]
)
def test_masks_scores_and_logits_equal_the_peers(
    name, version, sam2_weights, sam2_model, reference_data, tmp_path
) -> None:
    if not installed("inference-models"):  # lensmount-inference-compat has its import path
        pytest.skip("needs inference-models")
    peer = pytest.importorskip("inference_models.models.sam2.sam2_torch")
    import cv2

    shutil.copy(sam2_weights(name), tmp_path / "model.pt")
    (tmp_path / "sam_configuration.json").write_text(json.dumps({"version": version}))
    theirs = peer.SAM2Torch.from_pretrained(str(tmp_path))
    picture = cv2.imread(str(reference_data / "goldens" / "img" / "truck.jpg"))
    for prompt in PROMPTS:
        several = "boxes" not in prompt
        arrays = {key: [np.asarray(value, np.float32)] for key, value in prompt.items()}
        if "boxes" in arrays:
            arrays["boxes"] = [arrays["boxes"][0][None]]
        rgb = np.ascontiguousarray(picture[..., ::-1])  # it hands arrays on as they are
        (expected,) = theirs.segment_images(images=rgb, multi_mask_output=several, **arrays)
        (found,) = sam2_model(name)(picture, multi_mask_output=several, **prompt)
        masks, truth = found.masks.dense(), expected.masks.numpy().astype(bool).reshape(found.masks.shape)
        assert ((masks & truth).sum((1, 2)) / np.maximum((masks | truth).sum((1, 2)), 1)).min() > 0.99
        assert np.abs(found.logits - expected.logits.numpy().reshape(found.logits.shape)).max() < 1e-5
        assert np.abs(found.scores - expected.scores.numpy().ravel()).max() < 1e-5
