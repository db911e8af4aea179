"""RF-DETR: from a decoded 1080p array to results, its parts, and what else runs the same weights.

    python benchmarks/rfdetr.py CHECKPOINT.pth [--onnx GRAPH.onnx] [--transformers] [--threads 2] [--runs 30]
    python benchmarks/rfdetr.py CHECKPOINT.pth --cold [--runs 7]
    python benchmarks/rfdetr.py CHECKPOINT.pth --drift [--device cuda:0] [--precisions fp16 bf16]
                                [--compile] [--cuda-graphs]

The first times everything in turn within one process (A B C A B C …), so that a drift of the machine's speed hits all
alike, and prints medians and the medians of the ratios of pairs. `--transformers` adds Hugging Face's image processor,
model and post-processing with the same weights (they need torchvision). `--cold` times processes that load the model
from a warm file cache, interpreter and imports included. `--drift` compares optimised loads with the plain float32
one: speed, and how far results are from it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

from lensmount import registry

CONFIDENCE = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="checkpoint or model id")
    parser.add_argument("--onnx", help="our export of the same weights")
    parser.add_argument("--transformers", action="store_true", help="compare with transformers' processor and model")
    parser.add_argument("--image", help="picture, resized to 1920x1080; smooth noise without it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--drift", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="*", default=["bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cuda-graphs", action="store_true")
    args = parser.parse_args()
    if args.cold:
        cold(args)
    elif args.drift:
        drift(args)
    else:
        compare(args)


def compare(args) -> None:
    import cv2

    cv2.setNumThreads(args.threads)
    picture = load_picture(args.image)
    model = registry.load(args.model, backend="torch", device="cpu", threads=args.threads)
    batch, geometries = model.preprocess(picture)
    raw = model.forward(batch)
    calls = {
        "torch: array to boxes": lambda: model(picture, confidence=CONFIDENCE),
        "  preprocess": lambda: model.preprocess(picture),
        "  network": lambda: model.forward(batch),
        "  postprocess": lambda: model.postprocess(raw, geometries, confidence=CONFIDENCE),
    }
    if args.onnx:
        graph = registry.load(args.onnx, backend="onnx", device="cpu", threads=args.threads)
        calls["onnx: array to boxes"] = lambda: graph(picture, confidence=CONFIDENCE)
        calls["  network (onnx)"] = lambda: graph.forward(batch)
    if args.transformers:
        calls["transformers"], calls["  network (transformers)"] = transformers_calls(args.model, picture, batch)
    times, used = interleave(calls, args.runs)
    found = len(model(picture, confidence=CONFIDENCE)[0].confidence)
    print(f"{args.model}: {found} objects, {args.threads} threads, {platform.machine()}, median of {args.runs}")
    print(f"  {'':<28}{'wall ms':>10}{'CPU ms':>10}")
    for label in calls:
        print(f"  {label:<28}{1e3 * statistics.median(times[label]):10.2f}{1e3 * statistics.median(used[label]):10.2f}")
    ours, network = "torch: array to boxes", "  network"
    print(f"  everything but the network: {100 * (ratio(used, ours, network) - 1):.1f} % of its CPU time")
    for other in ("onnx: array to boxes", "transformers"):
        if other in calls:
            print(f"  {ours} / {other}: wall {ratio(times, ours, other):.3f}, CPU {ratio(used, ours, other):.3f}")


def ratio(values, a: str, b: str) -> float:
    return statistics.median(x / y for x, y in zip(values[a], values[b], strict=True))


def load_picture(path: str | None) -> np.ndarray:
    import cv2

    if path is None:
        coarse = np.random.default_rng(0).integers(0, 256, (27, 48, 3), dtype=np.uint8)
        return cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(cv2.imread(path), (1920, 1080))


def interleave(calls, runs: int):
    """Wall and CPU seconds of each call; the CPU's are of all threads of this process."""
    for call in calls.values():
        for _ in range(3):
            call()
    times, used = {label: [] for label in calls}, {label: [] for label in calls}
    for _ in range(runs):
        for label, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            times[label].append(time.perf_counter() - wall)
            used[label].append(time.process_time() - cpu)
    return times, used


def transformers_calls(checkpoint: str, picture: np.ndarray, batch: np.ndarray):
    """Calls of transformers on the same weights."""
    import torch
    from transformers.models.rf_detr.configuration_rf_detr import RfDetrConfig
    from transformers.models.rf_detr.image_processing_rf_detr import RfDetrImageProcessor
    from transformers.models.rf_detr.modeling_rf_detr import RfDetrForInstanceSegmentation, RfDetrForObjectDetection

    from lensmount_reading import as_torch_state_dict, read_checkpoint
    from lensmount_rfdetr.checkpoint import layout_of, read_contents

    contents = read_contents(read_checkpoint(checkpoint))
    layout = layout_of(contents, checkpoint)
    config = RfDetrConfig(
        backbone_config={
            "model_type": "rf_detr_dinov2",
            "hidden_size": layout.width,
            "num_attention_heads": layout.heads,
            "image_size": layout.patch * layout.grid,
            "patch_size": layout.patch,
            "num_windows": layout.windows,
            "out_features": [f"stage{stage}" for stage in layout.stages],
        },
        d_model=layout.hidden,
        decoder_layers=layout.layers,
        decoder_n_points=layout.points,
        num_queries=layout.queries,
        num_labels=layout.columns,
        layer_norm_eps=1e-6,
    )
    kind = RfDetrForInstanceSegmentation if layout.mask_blocks else RfDetrForObjectDetection
    state = as_torch_state_dict(contents.tensors, dtype=torch.float32)
    state = {key: value for key, value in state.items() if "_kp_active_mask" not in key}
    model = kind.from_pretrained(None, config=config, state_dict=state).eval()
    side = layout.resolution
    processor = RfDetrImageProcessor(size={"height": side, "width": side})
    rgb = np.ascontiguousarray(picture[..., ::-1])
    tensor = torch.from_numpy(batch)
    decode = (
        processor.post_process_instance_segmentation if layout.mask_blocks else processor.post_process_object_detection
    )

    def whole():
        with torch.inference_mode():
            outputs = model(**processor(images=rgb, return_tensors="pt"))
            return decode(outputs, threshold=CONFIDENCE, target_sizes=[rgb.shape[:2]])

    def network():
        with torch.inference_mode():
            return model(tensor)

    with torch.inference_mode():
        ours = registry.load(checkpoint, backend="torch", device="cpu").forward(batch)
        theirs = model(tensor)
        difference = np.abs(ours["labels"] - theirs.logits.numpy()).max(-1)
        print(f"  class logits, ours against transformers': median {np.median(difference):.1g} of a query's largest")
    return whole, network


def cold(args) -> None:
    code = (
        "import sys; from lensmount import registry; "
        "model = registry.load(sys.argv[1], backend='torch', device='cpu', threads=int(sys.argv[2]))"
    )
    environment = {**os.environ, "LENSMOUNT_OFFLINE": "1"}
    command = [sys.executable, "-c", code, args.model, str(args.threads)]
    imports = [sys.executable, "-c", "import torch"]
    times = {"load": [], "import torch": []}
    for _ in range(args.runs + 1):
        for label, line in (("load", command), ("import torch", imports)):
            start = time.perf_counter()
            subprocess.run(line, check=True, env=environment)
            times[label].append(time.perf_counter() - start)
    for label, values in times.items():
        print(f"  cold process, {label}: {statistics.median(values[1:]):.2f} s (best {min(values[1:]):.2f})")


def drift(args) -> None:
    picture = load_picture(args.image)
    plain = registry.load(args.model, backend="torch", device=args.device)
    batch, _ = plain.preprocess(picture)
    models = {"fp32": plain}
    for precision in args.precisions:
        models[precision] = registry.load(args.model, backend="torch", device=args.device, precision=precision)
    if args.cuda_graphs:
        models |= {
            f"{precision} recorded": registry.load(
                args.model, backend="torch", device=args.device, precision=precision, cuda_graphs=True
            )
            for precision in list(models)
        }
    if args.compile:
        models |= {
            f"{precision} compiled": registry.load(
                args.model, backend="torch", device=args.device, precision=precision, compile=True
            )
            for precision in ("fp32", *args.precisions)
        }
    times, _ = interleave({label: lambda m=model: m.forward(batch) for label, model in models.items()}, args.runs)
    expected = plain.forward(batch)
    target = plain(picture, confidence=CONFIDENCE)[0]
    print(f"{args.model} on {args.device}: network alone, median of {args.runs}; {len(target.xyxy)} objects in fp32")
    for label, model in models.items():
        found = model.forward(batch)
        logits = np.abs(found["labels"] - expected["labels"]).max(-1)
        boxes = np.abs(found["dets"] - expected["dets"]).max(-1) * max(picture.shape[:2])
        print(
            f"  {label:<14} {1e3 * statistics.median(times[label]):8.2f} ms   logits off by {np.median(logits):.2g} "
            f"(95 %: {np.quantile(logits, 0.95):.2g}), boxes by {np.median(boxes):.2g} px of 1080p; "
            f"{kept(target, model(picture, confidence=CONFIDENCE)[0])} objects found again"
        )


def kept(expected, found) -> int:
    """Objects of the plain load that the other one finds too: same class, overlap of 0.9."""
    from lensmount_vision.results.boxes import iou_matrix

    if not len(expected.xyxy) or not len(found.xyxy):
        return 0
    same = expected.class_id[:, None] == found.class_id[None]
    return int(((iou_matrix(expected.xyxy, found.xyxy) >= 0.9) & same).any(1).sum())


if __name__ == "__main__":
    main()
