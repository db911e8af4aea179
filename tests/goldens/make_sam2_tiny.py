"""Writes sam2_tiny_keys.json and sam2_tiny.npz: what transformers' Sam2VideoModel answers on seeded weights.

    python tests/goldens/make_sam2_tiny.py        # needs transformers 5.23 and torch

Inputs are `tests/support/sam2_tiny.py`'s frames, RGB / 255, normalised by ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoConfig
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession, Sam2VideoModel

import sam2_tiny

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POINT, BOX = [40.0, 60.0], [70.0, 50.0, 110.0, 110.0]


def main() -> None:
    made = sam2_tiny.config()
    made.pop("model_type")
    model = Sam2VideoModel(Sam2VideoConfig(**made)).eval()
    keys = {key: list(value.shape) for key, value in model.state_dict().items()}
    sam2_tiny.KEYS.write_text(json.dumps(keys, indent=0) + "\n")
    model.load_state_dict({key: torch.from_numpy(value) for key, value in sam2_tiny.weights().items()})
    pixels = np.stack(sam2_tiny.frames()).astype(np.float32) / 255
    pixels = torch.from_numpy(((pixels - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2).copy())
    found = {}
    with torch.inference_mode():
        maps = model.get_image_embeddings(pixels[:1])
        found["embedding"], found["high_res_0"], found["high_res_1"] = maps[2], maps[0], maps[1]
        sizes = {"image_embeddings": maps}
        point = torch.tensor(POINT).reshape(1, 1, 1, 2)
        label = torch.ones(1, 1, 1, dtype=torch.int64)
        box = torch.tensor(BOX).reshape(1, 1, 4)
        for name, prompt in {
            "point": {"input_points": point, "input_labels": label, "multimask_output": True},
            "box": {"input_boxes": box, "multimask_output": False},
        }.items():
            made_by = model._single_frame_forward(**prompt, **sizes)
            found[f"{name}_scores"] = made_by.iou_scores[0, 0]
            found[f"{name}_low"] = made_by.pred_masks[0]  # the best of three
        session = Sam2VideoInferenceSession(
            video=pixels, video_height=sam2_tiny.SIDE, video_width=sam2_tiny.SIDE, dtype=torch.float32
        )
        corners = torch.tensor(BOX).reshape(1, 1, 2, 2)
        told = ((point, label), (corners, torch.tensor([2, 3]).reshape(1, 1, 2)))
        for number, (places, labels) in enumerate(told, 1):
            index = session.obj_id_to_idx(number)
            session.add_point_inputs(index, 0, {"point_coords": places, "point_labels": labels})
            session.obj_with_new_inputs.append(number)
        steps = [model(session, frame_idx=index) for index in range(len(pixels))]
        found["video_low"] = torch.stack([step.pred_masks[:, 0] for step in steps])
        found["video_presence"] = torch.stack([step.object_score_logits[:, 0] for step in steps])
    arrays = {name: value.numpy().astype(np.float32) for name, value in found.items()}
    for name, value in arrays.items():
        print(name, value.shape, float(np.abs(value).max()))
    np.savez_compressed(sam2_tiny.OUTPUTS, **arrays)


if __name__ == "__main__":
    main()
