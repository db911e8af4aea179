"""Writes trained weights into the package: `shapes-nano.safetensors`, `shapes-nano.onnx`, and the demo picture.

    python export.py runs/shapes/best.pt

Batch normalisation is folded into the convolutions and every number rounded to float16, which halves the files.
The graph casts the weights back to float32 before use and the torch form is loaded as float32, so both compute in
float32 from exactly the same numbers. Prints the sizes and hashes for `catalog.toml`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from train import DEMO_SEED, IMAGE_SIZE, SCALE

from lensmount.contracts import TensorSpec
from lensmount_networks import TYPES, Layer, Network, Value
from lensmount_networks.layers import Tensor, parts
from lensmount_shapes.scenes import CLASSES, make_scene
from lensmount_yolo.networks.assemble import assemble
from lensmount_yolo.networks.fuse import fuse
from lensmount_yolo.networks.nodes import Node
from lensmount_yolo.networks.tensors import measure

#: A scene of twelve shapes, all classes among them, some covered in part.
DEMO_INDEX = 20
DATA = Path(__file__).parent / "src" / "lensmount_shapes" / "data"
#: What other tools read in a YOLO graph; the weights file says the same.
METADATA = {
    "description": "shapes-nano: circles, squares, triangles, stars, rings and crosses in generated scenes",
    "author": "The lensmount authors",
    "license": "Apache-2.0",
    "version": "1.0",
    "task": "segment",
    "stride": "32",
    "batch": "1",
    "channels": "3",
    "imgsz": f"[{IMAGE_SIZE}, {IMAGE_SIZE}]",
    "names": str(dict(enumerate(CLASSES))),
}


def load_folded(checkpoint: Path) -> tuple[Node, dict[str, NDArray[np.float16]]]:
    """The trained network, folded, every weight rounded to float16."""
    trained = torch.load(checkpoint, weights_only=True)
    tensors = {name: tensor.numpy() for name, tensor in trained.items() if not name.endswith("num_batches_tracked")}
    tree, tensors = fuse(measure({name: tensor.shape for name, tensor in tensors.items()}), tensors)
    rounded = {name: np.ascontiguousarray(tensor, np.float16) for name, tensor in tensors.items()}
    for name, tensor in rounded.items():
        if not np.isfinite(tensor).all():
            raise SystemExit(f"{name} does not fit into float16")
    return tree, rounded


def write_safetensors(tensors: Mapping[str, NDArray[np.float16]], path: Path) -> None:
    """Float16 tensors under the official names, with what a loader needs to know as metadata."""
    facts = {
        "architecture": "yolo",
        "variant": "v8",
        "depth": str(SCALE.depth),
        "width": str(SCALE.width),
        "max_channels": str(SCALE.max_channels),
    }
    data = save(dict(tensors), {**facts, **METADATA, "names": json.dumps(dict(enumerate(CLASSES)))})
    # The library writes the metadata in random order; sorted, the same weights give the same file.
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def write_onnx(tree: Node, tensors: Mapping[str, NDArray[np.float16]], path: Path) -> None:
    """Opset 17, dynamic batch; weights as float16 behind casts to float32."""

    def layer() -> Layer:
        """The network on casts of its tensors."""
        return Widened(assemble(tree))

    size, sizes = ("height", "width"), {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    network = Network(
        layer=layer,
        tensors={f"network.{name}": tensor for name, tensor in tensors.items()},
        inputs=(TensorSpec("images", ("batch", 3, *size), "float32"),),
        outputs=(),
        metadata=METADATA,
    )
    shapes = network.shapes({**sizes, "batch": 1})
    outputs = tuple(TensorSpec(f"output{i}", ("batch", *shape[1:]), "float32") for i, shape in enumerate(shapes))
    replace(network, outputs=outputs).save(path, sizes)


class Widened(Layer):
    """A network that computes in float32 with tensors of float16."""

    def __init__(self, network: Layer) -> None:
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs."""
        for _, part in parts(self.network):
            for name, value in vars(part).items():
                if isinstance(value, Value):
                    setattr(part, name, value.graph.add("Cast", [value], None, "float32", to=TYPES["float32"]))
        return self.network(images)


def write_demo(path: Path) -> None:
    """A picture of a series that neither training nor evaluation uses."""
    scene = make_scene(DEMO_SEED, DEMO_INDEX, 960, 640, count=12)
    cv2.imwrite(str(path), scene.image, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tree, rounded = load_folded(options.checkpoint)
    write_safetensors(rounded, options.out / "shapes-nano.safetensors")
    write_onnx(tree, rounded, options.out / "shapes-nano.onnx")
    write_demo(options.out / "scene.jpg")
    for file in sorted(options.out.iterdir()):
        print(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
