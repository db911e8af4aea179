"""Writes trained weights into the package: `shapes-nano.safetensors`, `shapes-nano.onnx`, and the demo picture.

    python export.py runs/shapes/best.pt

Batch normalisation is folded into the convolutions and every number rounded to float16, which halves the files.
The graph casts the weights back to float32 before use and the torch form is loaded as float32, so both compute in
float32 from exactly the same numbers. Prints the sizes and hashes for `catalog.toml`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import warnings
from pathlib import Path

import cv2
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from train import DEMO_SEED, IMAGE_SIZE, SCALE, make_network

from lensmount_shapes.scenes import CLASSES, make_scene
from lensmount_yolo.networks.build import YoloNetwork
from lensmount_yolo.networks.fuse import fuse_conv_bn

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


def load_folded(checkpoint: Path) -> YoloNetwork:
    """The trained network, folded, every weight rounded to a float16 value; still float32."""
    network = make_network().eval()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    fuse_conv_bn(network)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            rounded = tensor.half().float()
            if not rounded.isfinite().all():
                raise SystemExit(f"{name} does not fit into float16")
            tensor.copy_(rounded)
    return network


def write_safetensors(network: YoloNetwork, path: Path) -> None:
    """Float16 tensors under the official names, with what a loader needs to know as metadata."""
    facts = {
        "architecture": "yolo",
        "variant": "v8",
        "depth": str(SCALE.depth),
        "width": str(SCALE.width),
        "max_channels": str(SCALE.max_channels),
    }
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    data = save(tensors, {**facts, **METADATA, "names": json.dumps(dict(enumerate(CLASSES)))})
    # The library writes the metadata in random order; sorted, the same weights give the same file.
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def write_onnx(network: YoloNetwork, path: Path) -> None:
    """Opset 17, dynamic batch; weights as float16 behind casts to float32."""
    stream = io.BytesIO()
    names = ["output0", "output1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing exporter: it is the one that needs no further package
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE),),
            stream,
            input_names=["images"],
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in ["images", *names]},
            opset_version=17,
            dynamo=False,
        )
    model = onnx.load_from_string(stream.getvalue())
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        full = numpy_helper.to_array(tensor)
        half = full.astype("float16")
        if (half.astype("float32") != full).any():
            raise SystemExit(f"initializer {tensor.name} is not a float16 value")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    for node in model.graph.node:
        node.doc_string = ""
    with torch.inference_mode():
        for output, tensor in zip(model.graph.output, network(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)), strict=True):
            # The exporter gives up on these sizes, which follow from the input's.
            for dim, size in zip(output.type.tensor_type.shape.dim[1:], tensor.shape[1:], strict=True):
                dim.dim_value = size
    helper.set_model_props(model, METADATA)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


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
    trained = load_folded(options.checkpoint)
    write_safetensors(trained, options.out / "shapes-nano.safetensors")
    write_onnx(trained, options.out / "shapes-nano.onnx")
    write_demo(options.out / "scene.jpg")
    for file in sorted(options.out.iterdir()):
        print(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
