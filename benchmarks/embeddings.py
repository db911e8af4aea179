"""CLIP ViT-B/32 in lensmount against transformers on the same random weights, and 200 JPEG files end to end.

    python benchmarks/embeddings.py [--threads 2] [--runs 15] [--images FOLDER] [--weights FOLDER]

Needs transformers (which lensmount does not) and torch. What is compared runs in turns within one process (A B C A B
C …), so that a drift of the machine's speed hits all alike; printed are medians, and medians of the ratios of turns.
Weights are random, which takes the same time as trained ones. `--weights` keeps them and the exported graphs there.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from lensmount import registry

LABELS = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--files", type=int, default=200, help="JPEG files to embed")
    parser.add_argument("--only", choices=("networks", "labels", "files"), help="one of the three parts")
    parser.add_argument("--images", type=Path, help="folder of pictures to make the JPEG files of")
    parser.add_argument("--weights", type=Path, help="folder to keep the weights in")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.weights or Path(temporary)
        reference = weights(folder / "hf")
        if not (folder / "onnx").is_dir():
            registry.export(folder / "hf", to="onnx", output=folder / "onnx")
        models = {
            "torch": registry.load(folder / "hf", backend="torch", device="cpu", threads=args.threads),
            "onnx": registry.load(folder / "onnx", backend="onnx", device="cpu", threads=args.threads),
        }
        print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
        if args.only in (None, "networks"):
            networks(models, reference, args.runs)
        if args.only in (None, "labels"):
            labels(models, reference, args.runs)
        if args.only in (None, "files"):
            files(models, reference, jpegs(Path(temporary), args.images, args.files), max(3, args.runs // 5))


def weights(folder: Path):
    """transformers' model of CLIP ViT-B/32, with random weights, saved to the folder."""
    from transformers import CLIPConfig, CLIPModel

    if not folder.is_dir():
        torch.manual_seed(0)
        projection = {"projection_dim": 512}
        vision = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
        text = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 12}
        ids = {"bos_token_id": 49406, "eos_token_id": 49407}
        config = CLIPConfig(
            vision_config={**vision, "patch_size": 32, "image_size": 224}, text_config={**text, **ids}, **projection
        )
        CLIPModel(config).save_pretrained(folder)
    return CLIPModel.from_pretrained(folder).eval()


def networks(models, reference, runs: int) -> None:
    for batch in (1, 16):
        pixels = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)
        tensor = torch.from_numpy(pixels)
        calls = {f"lensmount {name}": lambda m=model, x=pixels: m.forward_images(x) for name, model in models.items()}
        calls["transformers"] = lambda t=tensor: image_features(reference, t)
        report(f"image network, batch {batch}", calls, "transformers", runs, per=batch)


@torch.inference_mode()
def image_features(reference, pixels):
    return reference.visual_projection(reference.vision_model(pixel_values=pixels).pooler_output)


@torch.inference_mode()
def text_features(reference, tokens):
    mask = (tokens != 0).long()
    return reference.text_projection(reference.text_model(input_ids=tokens, attention_mask=mask).pooler_output)


def labels(models, reference, runs: int) -> None:
    """80 labels, tokens given: ours and transformers' get the same, trimmed to the longest as `padding=True` does."""
    words = [
        "an old",
        "red",
        "green wooden",
        "small",
        "fire",
        "parking",
        "stop",
        "tennis",
        "car",
        "dog",
        "cat",
        "bench",
    ]
    random = np.random.default_rng(0)
    texts = [f"a photo of a {' '.join(random.choice(words, random.integers(1, 4)))} {i}" for i in range(LABELS)]
    tokens = torch.from_numpy(models["torch"].tokenize(texts))
    calls = {f"lensmount {name}": lambda m=model: m.forward_text(tokens.numpy()) for name, model in models.items()}
    calls["transformers"] = lambda: text_features(reference, tokens)
    report(f"text network, {LABELS} labels of up to {tokens.shape[1]} tokens", calls, "transformers", runs)
    fresh = iter(range(10**9))
    calls = {}
    for name, model in models.items():
        calls[f"{name}: embed_text, new"] = lambda m=model: m.embed_text([f"{t} {next(fresh) % 997}" for t in texts])
        model.embed_text(texts)
        calls[f"{name}: embed_text, again"] = lambda m=model: m.embed_text(texts)
    report(f"{LABELS} labels with tokenising", calls, None, runs)


def jpegs(folder: Path, images: Path | None, count: int) -> list[str]:
    """JPEG files of 640x480."""
    found = sorted(p for p in images.iterdir() if p.suffix in (".jpg", ".jpeg", ".png")) if images else []
    pictures = [p for p in (cv2.imread(str(p)) for p in found) if p is not None] or [blobs(i) for i in range(8)]
    made = []
    for i in range(count):
        picture = cv2.resize(pictures[i % len(pictures)], (640, 480), interpolation=cv2.INTER_AREA)
        made.append(str(folder / f"{i:03d}.jpg"))
        cv2.imwrite(made[-1], picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return made


def blobs(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8)
    return cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)


def files(models, reference, paths: list[str], runs: int) -> None:
    """From files to vectors, in pictures a second."""
    calls = {}
    for name, model in models.items():
        calls[f"{name}: embed_images"] = lambda m=model: m.embed_images(paths)
        calls[f"{name}: one at a time"] = lambda m=model: [m.forward_images(m.preprocess(p)[0]) for p in paths]
    calls["PIL + transformers, one at a time"] = lambda: plain_loop(reference, paths)
    times = interleave(calls, runs)
    print(f"{len(paths)} JPEG files of 640x480, median of {runs}")
    for label, values in times.items():
        print(f"  {label:<36} {len(paths) / statistics.median(values):7.1f} pictures/s")
    for name in models:
        for base in (f"{name}: one at a time", "PIL + transformers, one at a time"):
            ratio = [b / a for a, b in zip(times[f"{name}: embed_images"], times[base], strict=True)]
            print(f"  {name}: embed_images / {base:<36} {statistics.median(ratio):.2f} times the throughput")


def plain_loop(reference, paths: list[str]) -> list[torch.Tensor]:
    """What one writes without thinking of it: decode, resize, crop, normalise, infer, one picture after another."""
    from PIL import Image

    mean, std = (
        np.array(v, np.float32) for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    found = []
    for path in paths:
        picture = Image.open(path).convert("RGB")
        scale = 224 / min(picture.size)
        picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BICUBIC)
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        pixels = (np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255 - mean) / std
        found.append(image_features(reference, torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())))
    return found


def interleave(calls, runs: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        call()
    for _ in range(runs):
        for label, call in calls.items():
            start = time.perf_counter()
            call()
            times[label].append(time.perf_counter() - start)
    return times


def report(title: str, calls, base: str | None, runs: int, per: int = 1) -> None:
    times = interleave(calls, runs)
    print(f"{title}, median of {runs}" + (" (ms for each picture)" if per > 1 else " (ms)"))
    for label, values in times.items():
        line = f"  {label:<28} {1e3 * statistics.median(values) / per:9.2f}"
        if base is not None:
            line += f"   {statistics.median(a / b for a, b in zip(values, times[base], strict=True)):.2f} x {base}"
        print(line)


if __name__ == "__main__":
    main()
