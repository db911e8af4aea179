"""Perception Encoder in lensmount against open_clip on the same random weights.

    python benchmarks/perception_encoder.py [--model PE-Core-T-16-384] [--threads 2] [--runs 7]

Needs open_clip_torch and timm (which lensmount does not) and torch. Both run in turns within one process (A B A B …);
printed are medians, medians of the ratios of turns, and how far the outputs differ.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lensmount import registry

LABELS = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="PE-Core-T-16-384", help="open_clip's name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    reference = reference_model(args.model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "open_clip_model.pt"
        torch.save(reference.state_dict(), file)
        model = registry.load(file, backend="torch", device="cpu", threads=args.threads)
        print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
        print(f"{args.model}, read as {model.card.id}")
        side = model.preprocess_spec.size[0]
        random = np.random.default_rng(0)
        for batch in (1, 16):
            pixels = random.standard_normal((batch, 3, side, side)).astype(np.float32)
            tensor = torch.from_numpy(pixels)
            compare(
                f"image network, batch {batch}",
                lambda x=pixels: model.forward_images(x),
                lambda t=tensor: encode(reference.encode_image, t),
                args.runs,
                batch,
            )
        tokens = model.tokenize([f"a photo of a red car number {i}" for i in range(LABELS)])
        whole = torch.zeros((LABELS, reference.context_length), dtype=torch.long)
        whole[:, : tokens.shape[1]] = torch.from_numpy(np.asarray(tokens, np.int64))
        compare(
            f"text network, {LABELS} labels of {tokens.shape[1]} tokens (open_clip: always {reference.context_length})",
            lambda: model.forward_text(tokens),
            lambda: encode(reference.encode_text, whole),
            args.runs,
            1,
        )


def reference_model(name: str):
    """open_clip's model with random weights everywhere (it leaves some of them uninitialised)."""
    import open_clip

    torch.manual_seed(0)
    reference = open_clip.create_model(name, pretrained=None).eval()
    with torch.no_grad():
        for key, value in reference.state_dict().items():
            if key.endswith(("positional_embedding", "text_projection", "pos_embed", "latent", "cls_token")):
                value.normal_(0, 0.02)
    return reference


@torch.inference_mode()
def encode(function, value):
    return function(value).numpy()


def compare(title: str, ours, theirs, runs: int, per: int) -> None:
    mine, other = np.asarray(ours()), np.asarray(theirs())
    cosine = (mine * other).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(other, axis=1)
    times: list[tuple[float, float]] = []
    for _ in range(runs):
        start = time.perf_counter()
        ours()
        middle = time.perf_counter()
        theirs()
        times.append((middle - start, time.perf_counter() - middle))
    first, second = (statistics.median(values) * 1e3 / per for values in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    print(f"{title}: {first:.1f} ms, open_clip {second:.1f} ms, ratio {ratio:.2f}; least cosine {cosine.min():.6f}")


if __name__ == "__main__":
    main()
