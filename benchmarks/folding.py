"""What a graph that takes 0..255 in BGR would save: is folding ÷255 and the channels' order into it worth while?

    python benchmarks/folding.py MODEL.onnx [--image PICTURE] [--threads 2] [--runs 60]

Prepares a decoded 1080p array in turn (A B C A B C …) as it is done, without swapping channels, without either (what a
graph with both folded in would leave to do), and as bytes (no float32 at all, which folding alone does not reach), and
runs the network. Prints medians, and the median saving of neighbouring turns as a share of preparing and the network.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from end_to_end import bare_session, interleave, load

from lensmount import registry
from lensmount_vision.images import transforms
from lensmount_vision.images.image import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--image", help="picture, resized to 1920x1080; noise without it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=60)
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    picture = Image(load(args.image))
    with registry.load(args.model, backend="onnx", device="cpu", threads=args.threads) as model:
        spec = model.preprocess_spec
        batch, _ = model.preprocess(picture.pixels)
    plain, same_order = np.empty_like(batch), replace(spec, color=picture.color)
    small = np.empty(batch.shape, np.uint8)
    bare = bare_session(args.model, args.threads)
    name = bare.get_inputs()[0].name
    calls: dict[str, Callable[[], Any]] = {
        "prepare": lambda: transforms.prepare([picture], spec, out=plain),
        "no swap": lambda: transforms.prepare([picture], same_order, out=plain),
        "no swap, no ÷255": lambda: unscaled(picture, same_order, plain),
        "bytes": lambda: transforms.prepare([picture], spec, dtype="uint8", out=small),
        "bare network": lambda: bare.run(None, {name: batch}),
    }
    times = interleave(calls, args.runs)
    whole = [a + b for a, b in zip(times["prepare"], times["bare network"], strict=True)]
    print(f"{args.model}: {batch.shape}, {args.threads} threads, median of {args.runs}")
    for label, values in times.items():
        saved = [(a - b) / c for a, b, c in zip(times["prepare"], values, whole, strict=True)]
        share = "" if label in ("prepare", "bare network") else f"   saves {100 * statistics.median(saved):.2f} %"
        print(f"  {label:<18} {1e3 * statistics.median(values):8.2f} ms{share}")


def unscaled(picture: Image, spec: Any, out: np.ndarray) -> None:
    def copy(plane: np.ndarray, target: np.ndarray, *_: Any) -> None:
        target[...] = plane

    with patch.object(transforms, "_normalise", copy):
        transforms.prepare([picture], spec, out=out)


if __name__ == "__main__":
    main()
