"""Against what the authors' code answers on the same weights.

Tolerances: the reference keeps maps in float16, whose spacing below 4 is 2e-3; logits 2e-3; masks IoU 0.99.
"""

from __future__ import annotations

import numpy as np
import pytest


def unpack(arrays, kind):
    shape = arrays[f"{kind}_masks_shape"]
    return np.unpackbits(arrays[f"{kind}_masks_packed"], axis=-1)[..., : shape[-1]].astype(bool)


def iou(a, b):
    return np.logical_and(a, b).sum((1, 2)) / np.maximum(np.logical_or(a, b).sum((1, 2)), 1)


@pytest.fixture(scope="module")
def dogs(reference_data):
    return reference_data / "goldens" / "img" / "dogs.jpg"


BACKENDS = ("torch", "onnx")  # onnx: the same file, as graphs that are made of it


@pytest.mark.parametrize("backend", BACKENDS)
def test_embedding(golden, sam2_model, dogs, backend):
    name, arrays = golden
    (embedding,) = sam2_model(name, backend=backend).embed_images(dogs)
    embed, fine, middle = (np.asarray(part) for part in embedding.maps)
    assert np.abs(embed[:, ::4] - arrays["image_embed"]).max() < 2e-3
    assert np.abs(fine[:, :, ::8, ::8] - arrays["high_res_0_strided"]).max() < 2e-3
    assert np.abs(middle[:, :, ::8, ::8] - arrays["high_res_1_strided"]).max() < 2e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["point", "points", "box", "refine"])
def test_prompts(kind, golden, sam2_model, dogs, backend):
    name, arrays = golden
    model = sam2_model(name, backend=backend)
    first = {"point_coordinates": arrays["points"][:1], "point_labels": arrays["labels"][:1]}
    prompts = {
        "point": {**first, "multi_mask_output": True},
        "points": {
            "point_coordinates": arrays["points"],
            "point_labels": arrays["labels"],
            "multi_mask_output": False,
        },
        "box": {"boxes": arrays["box"], "multi_mask_output": False},
        # Made from both points and the mask that the box gave.
        "refine": {
            "point_coordinates": arrays["points"],
            "point_labels": arrays["labels"],
            "mask_input": arrays["box_low"],
            "multi_mask_output": False,
        },
    }[kind]
    (result,) = model(dogs, **prompts)
    assert np.abs(result.logits - arrays[f"{kind}_low"]).max() < 2e-3
    assert np.abs(result.scores - arrays[f"{kind}_iou"]).max() < 1e-4
    assert iou(result.masks.dense(), unpack(arrays, kind)).min() > 0.99


@pytest.mark.slow
def test_video(golden, sam2_model, reference_data):
    """Five frames, two objects; logits at the frames' size, every second pixel."""
    import cv2

    name, arrays = golden
    prompts = {
        0: [
            {"points": [[150, 120]], "labels": [1], "object_id": 1},
            {"boxes": [20, 20, 200, 200], "object_id": 2},
        ]
    }
    folder = reference_data / "goldens" / "sam2-frames"
    results = list(sam2_model(name, 512).propagate(folder, prompts))
    assert len(results) == len(arrays["video_logits"])
    for result, expected in zip(results, arrays["video_logits"], strict=True):
        height, width = result.image_size
        assert result.object_ids.tolist() == [1, 2]
        for logits, mask, wanted in zip(result.logits, result.masks.dense(), expected[:, 0], strict=True):
            full = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
            assert np.abs(full[::2, ::2] - wanted).max() < 2e-3
            assert iou(mask[None, ::2, ::2], wanted[None] > 0).min() > 0.99
