"""Trains `shapes-nano` from nothing on generated scenes, on a CPU.

    python train.py --out runs/shapes            # about an hour on two cores; resumes from its last checkpoint
    python export.py runs/shapes/best.pt         # writes the weights into the package

The order of scenes, the initial weights and the schedule depend on `--seed` alone. Sums over threads may differ in
their last bits between machines, so a rerun gives a model of the same quality, not the same bytes.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from losses import Targets, loss
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, IterableDataset

from lensmount_shapes.scenes import CLASSES, make_scene
from lensmount_yolo.networks.build import build_network
from lensmount_yolo.networks.v8 import Scale, v8

IMAGE_SIZE = 256
#: A third of v8's depth, a quarter of its width, and no more than 48 channels anywhere in the body.
SCALE = Scale(depth=0.33, width=0.25, max_channels=192)
#: Series of scenes; evaluation and the demo picture use others.
TRAIN_SEED, HELD_OUT_SEED, DEMO_SEED = 1, 2, 3


def make_network(seed: int = 0) -> Module:
    """The untrained network; class scores start low, boxes a few cells wide."""
    torch.manual_seed(seed)
    network = build_network(v8("segment", len(CLASSES), SCALE))
    head = network.model[-1]
    for boxes, scores in zip(head.cv2, head.cv3, strict=True):
        boxes[-1].bias.data = (-0.3 * torch.arange(head.reg_max).float()).repeat(4)
        scores[-1].bias.data.fill_(-math.log(99.0))
    return network


class Scenes(IterableDataset[tuple[Tensor, dict[str, Tensor]]]):
    """Training scenes `start, start + 1, …`, letterboxed to `IMAGE_SIZE`."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """One picture `(3, S, S)` uint8 RGB and its truth at a time; split between the loader's workers."""
        cv2.setNumThreads(1)
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in range(self.start + first, self.stop, step):
            yield sample(index)


def sample(index: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Training scene `index`; a quarter of them are oblong, between grey bars."""
    width = height = IMAGE_SIZE
    chance = np.random.default_rng((TRAIN_SEED, index, 1))
    if chance.random() < 0.25:
        narrow = int(chance.integers(IMAGE_SIZE * 9 // 16, IMAGE_SIZE))
        width, height = (narrow, height) if chance.random() < 0.5 else (width, narrow)
    scene = make_scene(TRAIN_SEED, index, width, height)
    left, top = (IMAGE_SIZE - width) // 2, (IMAGE_SIZE - height) // 2
    image = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 114, np.uint8)
    image[top : top + height, left : left + width] = scene.image
    masks = np.zeros((len(scene.masks), IMAGE_SIZE, IMAGE_SIZE), np.float32)
    masks[:, top : top + height, left : left + width] = scene.masks
    quarter = IMAGE_SIZE // 4
    truth = {
        "class_id": torch.from_numpy(scene.class_id),
        "xyxy": torch.from_numpy(scene.xyxy + np.array([left, top, left, top], np.float32)),
        "masks": torch.from_numpy(masks.reshape(-1, quarter, 4, quarter, 4).mean((2, 4))),
    }
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))), truth


def collate(samples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, Targets]:
    """Stacks pictures and pads their truth."""
    most = max(1, *(len(truth["class_id"]) for _, truth in samples))
    quarter = IMAGE_SIZE // 4
    targets = Targets(
        torch.zeros(len(samples), most, dtype=torch.int64),
        torch.zeros(len(samples), most, 4),
        torch.zeros(len(samples), most, quarter, quarter),
        torch.zeros(len(samples), most, dtype=torch.bool),
    )
    for row, (_, truth) in enumerate(samples):
        count = len(truth["class_id"])
        for name, value in truth.items():
            getattr(targets, name)[row, :count] = value
        targets.valid[row, :count] = True
    return torch.stack([image for image, _ in samples]), targets


def learning_rate(step: int, steps: int, peak: float, warm_up: int = 300) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))))


def update_average(average: Module, network: Module, step: int) -> None:
    """Exponential moving average of weights and batch statistics, short at first, of about 500 steps later."""
    keep = 0.998 * (1 - math.exp(-(step + 1) / 300))
    fresh = network.state_dict()
    with torch.no_grad():
        for name, value in average.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(fresh[name], 1 - keep)


def train(options: argparse.Namespace) -> None:
    """Runs or resumes the training; writes `last.pt` as it goes and `best.pt` at the end."""
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    network = make_network(options.seed).to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(network).eval()
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}], lr=options.lr
    )
    begin, seconds = 0, 0.0
    last = options.out / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        begin, seconds = state["step"], state["seconds"]
    scenes = Scenes(begin * options.batch, options.steps * options.batch)
    loader = DataLoader(scenes, options.batch, num_workers=1, collate_fn=collate, prefetch_factor=8)
    started = time.perf_counter() - seconds
    sums: dict[str, float] = {}
    for step, (images, truth) in enumerate(loader, begin):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.lr)
        batch = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            raw = network(batch)
        total, parts = loss(raw, truth)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        update_average(average, network, step)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value
        done, seconds = step + 1, time.perf_counter() - started
        if done % 50 == 0:
            print(done, f"{seconds:.0f}s", {name: round(value / 50, 4) for name, value in sums.items()}, flush=True)
            sums = {}
        if done % 250 == 0 or done == options.steps:
            state = {"network": network.state_dict(), "average": average.state_dict(), "step": done}
            torch.save({**state, "optimizer": optimizer.state_dict(), "seconds": seconds}, last.with_suffix(".part"))
            last.with_suffix(".part").replace(last)
    torch.save(average.state_dict(), options.out / "best.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-bf16", dest="bf16", action="store_false", help="compute in float32, slower")
    train(parser.parse_args())
