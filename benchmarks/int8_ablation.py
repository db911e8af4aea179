"""What each choice of the int8 export gains and costs: accuracy on generated scenes beside processors' time and size.

    python benchmarks/int8_ablation.py [--graph YOLO.onnx --images DIR --annotations COCO.json --calibration DIR]
        [--count 120] [--calibrated 64] [--runs 40] [--threads 1]

Without arguments: shapes-nano, calibrated on generated scenes of a series of their own and judged on those that
`python -m lensmount_shapes.dataset` writes. Every graph goes through `lensmount_bench.accuracy`, then all run in turn
within one process (A B C … A B C …) through plain onnxruntime on noise; ratios are medians of those within a turn.
Needs lensmount[eval,int8], the yolo plugin and the sample plugin.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from int8 import noise, open_session, timed

from lensmount import registry
from lensmount_bench.accuracy import evaluate
from lensmount_bench.int8 import quantize
from lensmount_reading import read_onnx
from lensmount_vision.images.sources import expand_sources
from lensmount_vision.models.exporting import describe_graph
from lensmount_yolo.float_nodes import float_nodes

CALIBRATION_SEED = 3  # 1 is what the model was trained on, 2 what it is judged on


def with_last_convolutions(model: Any) -> frozenset[str]:
    """The export's float nodes, and the convolutions that feed them."""
    tail = float_nodes(model)
    fed = {name for node in model.graph.node if node.name in tail for name in node.input}
    fed |= {output.name for output in model.graph.output}
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    return tail | {node.name for node in convolutions if fed & set(node.output)}


def nothing(model: Any) -> frozenset[str]:
    """No node stays in float."""
    return frozenset()


#: Name of a row, which nodes stay in float, what else differs from the export.
VARIANTS: tuple[tuple[str, Callable[[Any], frozenset[str]], dict[str, Any]], ...] = (
    ("int8, all but what follows the last convolutions", float_nodes, {}),
    ("… the last convolutions in float too", with_last_convolutions, {}),
    ("… convolutions alone in int8", float_nodes, {"operators": ("Conv", "ConvTranspose")}),
    ("… activations as int8 rather than uint8", float_nodes, {"activations": "int8"}),
    ("… weights of eight bits rather than seven", float_nodes, {"full_range": True}),
    ("int8 throughout, with the decoding of boxes and scores", nothing, {}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, help="float32 graph of a YOLO (default: that of shapes-nano)")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--count", type=int, default=120, help="scenes to judge on")
    parser.add_argument("--calibrated", type=int, default=64, help="pictures to calibrate with, at most")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    own = (args.graph, args.images, args.annotations, args.calibration)
    if any(own) and not all(own):
        parser.error("--graph, --images, --annotations and --calibration go together")
    with tempfile.TemporaryDirectory() as made, resources.as_file(resources.files("lensmount_shapes")) as package:
        folder = Path(made)
        if not any(own):
            own = (next((package / "data").glob("*.onnx")), *scenes(folder, args.count, args.calibrated))
        graph, images, annotations, calibration = own
        rows = {"float32": graph} | variants(graph, sorted(expand_sources(calibration))[: args.calibrated], folder)
        scores = {name: judge(path, images, annotations) for name, path in rows.items()}
        ratios = times(list(rows.values()), args.threads, args.runs)
        print("| graph | box mAP50-95 | mask mAP50-95 | processors' time / float | size |\n|---|---:|---:|---:|---:|")
        for (name, path), ratio in zip(rows.items(), ratios, strict=True):
            box, mask = scores[name]
            print(f"| {name} | {box:.3f} | {mask} | {ratio:.2f} | {path.stat().st_size / 1e6:.1f} MB |")


def scenes(folder: Path, count: int, calibrated: int) -> tuple[Path, Path, Path]:
    """Generated scenes: pictures and annotations to judge on, pictures to calibrate with."""
    from lensmount_shapes.dataset import write

    annotations = write(folder / "judged", count)
    write(folder / "calibration", calibrated, seed=CALIBRATION_SEED)
    return folder / "judged/images", annotations, folder / "calibration/images"


def variants(graph: Path, pictures: list[str], folder: Path) -> dict[str, Path]:
    """The int8 graphs by name."""
    metadata = {**read_onnx(graph).metadata, "lensmount.precision": "int8"}
    with registry.load(graph, backend="onnx", device="cpu") as model:
        batches = [model.preprocess(picture)[0].repeat(model.batch.static or 1, 0) for picture in pictures]
    found = {}
    for number, (name, keep, more) in enumerate(VARIANTS):
        found[name] = folder / f"{number}.onnx"
        found[name].write_bytes(describe_graph(quantize(graph, batches, keep, **more), metadata))
    return found


def judge(path: Path, images: Path, annotations: Path) -> tuple[float, str]:
    """Average precision of boxes, and of masks where the model has them."""
    row = evaluate(path, images, annotations, backends=["onnx"], device="cpu").rows[0]
    if row.error is not None:
        raise SystemExit(f"{path}: {row.error}")
    return row.boxes["AP"], f"{row.masks['AP']:.3f}" if row.masks else ""


def times(paths: list[Path], threads: int, runs: int) -> list[float]:
    """Processors' time of each graph in the unit of the first's."""
    sessions = [open_session(str(path), threads) for path in paths]
    feed = noise(sessions[0])
    turns = np.array([[timed(session, feed)[0] for session in sessions] for _ in range(runs + 3)])[3:]
    return [statistics.median(column) for column in (turns / turns[:, :1]).T]


if __name__ == "__main__":
    main()
