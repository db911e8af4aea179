"""Trains a small RF-DETR from nothing on generated scenes, with transformers, and saves it for lensmount.

    pip install "lensmount[rfdetr,torch]" lensmount-shapes transformers scipy
    python train.py weights            # 8,000 steps: 40 minutes on one idle core
    lensmount predict ./weights scene.jpg --confidence 0.4 --save annotated

transformers brings the network and the losses (Hungarian matching, focal and box losses); the folder that it saves is
loaded by lensmount's own network. Scenes are those of the example plugin `lensmount-shapes`: six geometric classes.
Random numbers are seeded; sums over threads may differ in their last bits between machines.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from transformers.models.rf_detr.configuration_rf_detr import RfDetrConfig
from transformers.models.rf_detr.modeling_rf_detr import RfDetrForObjectDetection

from lensmount_shapes.scenes import CLASSES, make_scene

SIZE = 160
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Number of the series of scenes to train on; evaluation uses others.
SERIES = 1


def make_network(seed: int = 0) -> RfDetrForObjectDetection:
    """A twentieth of nano's weights: 1.4 million."""
    torch.manual_seed(seed)
    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "mlp_ratio": 2,
        "image_size": SIZE,
        "patch_size": 16,
        "num_windows": 1,
        "out_indices": [2, 4],
    }
    names = dict(enumerate(CLASSES))
    return RfDetrForObjectDetection(
        RfDetrConfig(
            backbone_config=backbone,
            id2label={**names, len(names): "background"},
            d_model=128,
            decoder_layers=2,
            decoder_self_attention_heads=4,
            decoder_cross_attention_heads=4,
            decoder_ffn_dim=256,
            decoder_n_points=2,
            c2f_num_blocks=1,
            num_queries=20,
            group_detr=3,
            dropout=0.0,
            auxiliary_loss=True,
        )
    )


class Scenes:
    """Pictures made once and mirrored at random each time.

    Attributes:
        pictures: `(N, SIZE, SIZE, 3)` uint8, RGB.
        truths: Class ids `(n,)` int64 and boxes `(n, 4)` float32, xyxy as shares of the side, per picture.
    """

    def __init__(self, count: int) -> None:
        scenes = [make_scene(SERIES, index, SIZE, SIZE) for index in range(count)]
        self.pictures = np.stack([scene.image[..., ::-1] for scene in scenes])
        self.truths = [(scene.class_id, scene.xyxy.astype(np.float32) / SIZE) for scene in scenes]

    def batch(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
        """Pictures `(size, 3, SIZE, SIZE)`, normalised, and truths as transformers' losses take them."""
        pictures, truths = [], []
        for index in rng.integers(len(self.pictures), size=size):
            across, down, turn = rng.random(3) < 0.5
            picture, (class_id, boxes) = self.pictures[index], self.truths[index]
            if across:
                picture, boxes = (
                    picture[:, ::-1],
                    np.stack((1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]), 1),
                )
            if down:
                picture, boxes = (
                    picture[::-1],
                    np.stack((boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]), 1),
                )
            if turn:
                picture, boxes = picture.transpose(1, 0, 2), boxes[:, [1, 0, 3, 2]]
            pictures.append(picture[..., rng.permutation(3)])
            x1, y1, x2, y2 = boxes.T
            centred = np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1)
            truths.append({"class_labels": torch.from_numpy(class_id), "boxes": torch.from_numpy(centred)})
        values = (np.stack(pictures).astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2))), truths


def rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 200 steps, then half a cosine."""
    return peak * min((step + 1) / 200, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)


def save(network: RfDetrForObjectDetection, folder: Path) -> None:
    """Writes the folder that `registry.load` takes."""
    network.save_pretrained(folder)
    size = {"height": SIZE, "width": SIZE}
    facts = {"size": size, "image_mean": MEAN, "image_std": STD, "do_resize": True, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts, indent=2))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scenes, rng = Scenes(options.scenes), np.random.default_rng(0)
    network = make_network().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-4)
    start, mean = time.perf_counter(), 0.0
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} million weights", flush=True)
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, options.steps, options.rate)
        pictures, truths = scenes.batch(rng, options.batch)
        loss = network(pixel_values=pictures, labels=truths).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {mean:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    save(network.half(), options.folder)


if __name__ == "__main__":
    main()
