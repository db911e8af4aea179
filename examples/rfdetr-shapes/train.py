"""Trains a small RF-DETR from nothing on generated scenes, with transformers, and saves it for lensmount.

    pip install "lensmount[rfdetr,torch]" lensmount-shapes transformers scipy
    python train.py rfdetr-shapes --steps 6000           # about an hour on one core
    lensmount predict ./rfdetr-shapes scene.jpg --save out

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

SIZE = 192
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_network(seed: int = 0) -> RfDetrForObjectDetection:
    """A twentieth of nano's width: 1.5 million weights."""
    torch.manual_seed(seed)
    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "mlp_ratio": 3,
        "image_size": SIZE,
        "patch_size": 12,
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
            decoder_cross_attention_heads=8,
            decoder_ffn_dim=256,
            decoder_n_points=2,
            c2f_num_blocks=1,
            num_queries=40,
            group_detr=4,
            dropout=0.0,
            auxiliary_loss=True,
        )
    )


def sample(seed: int, index: int) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """A scene: normalised picture `(3, SIZE, SIZE)`, and its truth as transformers' losses take it."""
    scene = make_scene(seed, index, SIZE, SIZE)
    picture = (scene.image.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    x1, y1, x2, y2 = (scene.xyxy.astype(np.float32) / SIZE).T
    boxes = np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1)
    truth = {"class_labels": torch.from_numpy(scene.class_id), "boxes": torch.from_numpy(boxes)}
    return picture.transpose(2, 0, 1), truth


def batch(step: int, size: int) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """The step's pictures and truths."""
    pictures, truths = zip(*(sample(1, step * size + i) for i in range(size)), strict=True)
    return torch.from_numpy(np.stack(pictures)), list(truths)


def rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over a twentieth, then half a cosine."""
    warm = max(steps // 20, 1)
    return peak * min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)


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
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4e-4)
    options = parser.parse_args()
    network = make_network().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-4)
    start, mean = time.perf_counter(), 0.0
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} million weights", flush=True)
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, options.steps, options.rate)
        pictures, truths = batch(step, options.batch)
        loss = network(pixel_values=pictures, labels=truths).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimiser.step()
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {mean:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
        if step % 500 == 499 or step + 1 == options.steps:
            save(network, options.folder)


if __name__ == "__main__":
    main()
