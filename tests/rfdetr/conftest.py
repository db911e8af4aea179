"""A small RF-DETR in the layout of official checkpoints, and graphs whose outputs are known beforehand."""

from __future__ import annotations

import argparse
import importlib.util
import json

import numpy as np
import pytest

ARGS = {
    "encoder": "dinov2_windowed_small",
    "patch_size": 16,
    "num_windows": 2,
    "out_feature_indexes": [1, 3],
    "positional_encoding_size": 4,
    "hidden_dim": 64,
    "dec_layers": 2,
    "num_queries": 10,
    "resolution": 64,
    "segmentation_head": False,
    "num_classes": 3,
}


def tensors(*, classes=3, masks=0, seed=0, width=64, hidden=64, layers=2, grid=4, patch=16, queries=10, groups=2):
    """Random tensors of a small network under the authors' keys."""
    rng = np.random.default_rng(seed)
    made = {}

    def add(key, *shape, scale=0.05, around=0.0):
        made[key] = (around + scale * rng.standard_normal(shape)).astype(np.float32)

    def linear(key, inputs, outputs):
        add(f"{key}.weight", outputs, inputs, scale=inputs**-0.5)
        add(f"{key}.bias", outputs)

    def norm(key, size):
        add(f"{key}.weight", size, around=1.0)
        add(f"{key}.bias", size)

    body = "backbone.0.encoder.encoder."
    add(body + "embeddings.cls_token", 1, 1, width)
    add(body + "embeddings.mask_token", 1, width)
    add(body + "embeddings.position_embeddings", 1, grid * grid + 1, width, scale=0.3)
    add(body + "embeddings.patch_embeddings.projection.weight", width, 3, patch, patch, scale=0.04)
    add(body + "embeddings.patch_embeddings.projection.bias", width)
    for i in range(3):
        block = f"{body}encoder.layer.{i}."
        norm(block + "norm1", width)
        norm(block + "norm2", width)
        for name in ("query", "key", "value"):
            linear(f"{block}attention.attention.{name}", width, width)
        linear(block + "attention.output.dense", width, width)
        linear(block + "mlp.fc1", width, 4 * width)
        linear(block + "mlp.fc2", 4 * width, width)
        for name in ("layer_scale1", "layer_scale2"):
            add(f"{block}{name}.lambda1", width, around=0.7)
    norm(body + "layernorm", width)
    stage, half = "backbone.0.projector.stages.0.", hidden // 2

    def conv_norm(key, inputs, outputs, kernel):
        add(f"{key}.conv.weight", outputs, inputs, kernel, kernel, scale=(inputs * kernel**2) ** -0.5)
        norm(f"{key}.bn", outputs)

    conv_norm(stage + "0.cv1", 2 * width, 2 * half, 1)
    conv_norm(stage + "0.cv2", 5 * half, hidden, 1)
    for i in range(3):
        for name in ("cv1", "cv2"):
            conv_norm(f"{stage}0.m.{i}.{name}", half, half, 3)
    norm(stage + "1", hidden)
    for i in range(layers):
        layer = f"transformer.decoder.layers.{i}."
        linear(layer + "self_attn.out_proj", hidden, hidden)
        add(layer + "self_attn.in_proj_weight", 3 * hidden, hidden, scale=0.1)
        add(layer + "self_attn.in_proj_bias", 3 * hidden)
        heads, points = hidden // 16, 2
        linear(layer + "cross_attn.sampling_offsets", hidden, 2 * heads * points)
        linear(layer + "cross_attn.attention_weights", hidden, heads * points)
        linear(layer + "cross_attn.value_proj", hidden, hidden)
        linear(layer + "cross_attn.output_proj", hidden, hidden)
        linear(layer + "linear1", hidden, 128)
        linear(layer + "linear2", 128, hidden)
        for name in ("norm1", "norm2", "norm3"):
            norm(layer + name, hidden)
    norm("transformer.decoder.norm", hidden)
    linear("transformer.decoder.ref_point_head.layers.0", 2 * hidden, hidden)
    linear("transformer.decoder.ref_point_head.layers.1", hidden, hidden)

    def box_mlp(key):
        linear(f"{key}.layers.0", hidden, hidden)
        linear(f"{key}.layers.1", hidden, hidden)
        linear(f"{key}.layers.2", hidden, 4)

    for group in range(groups):
        linear(f"transformer.enc_output.{group}", hidden, hidden)
        norm(f"transformer.enc_output_norm.{group}", hidden)
        box_mlp(f"transformer.enc_out_bbox_embed.{group}")
        linear(f"transformer.enc_out_class_embed.{group}", hidden, classes + 1)
    linear("class_embed", hidden, classes + 1)
    box_mlp("bbox_embed")
    add("refpoint_embed.weight", groups * queries, 4, scale=0.2)
    add("query_feat.weight", groups * queries, hidden, scale=0.5)
    if masks:
        head = "segmentation_head."
        add(head + "bias", 1)
        for i in range(masks):
            add(f"{head}blocks.{i}.dwconv.weight", hidden, 1, 3, 3, scale=0.3)
            add(f"{head}blocks.{i}.dwconv.bias", hidden)
            norm(f"{head}blocks.{i}.norm", hidden)
            linear(f"{head}blocks.{i}.pwconv1", hidden, hidden)
        add(head + "spatial_features_proj.weight", hidden, hidden, 1, 1, scale=0.12)
        add(head + "spatial_features_proj.bias", hidden)
        norm(head + "query_features_block.norm_in", hidden)
        linear(head + "query_features_block.layers.0", hidden, 4 * hidden)
        linear(head + "query_features_block.layers.2", 4 * hidden, hidden)
        linear(head + "query_features_proj", hidden, hidden)
    return made


def write_checkpoint(path, made, args=None, **beside):
    """An official container: `model` and `args`, saved by torch."""
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in made.items()}
    tree = {"model": state, **beside}
    if args is not None:
        tree["args"] = argparse.Namespace(**args)
    torch.save(tree, path)
    return path


def write_recipe(reference_data, name, path):
    """An official checkpoint from the reference data's recipe."""
    goldens = reference_data / "goldens"
    spec = importlib.util.spec_from_file_location("recipe", goldens / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    args = json.loads((goldens / f"{name}.args.json").read_text())
    return write_checkpoint(path, recipe.state_dict(goldens, name), args)


@pytest.fixture
def checkpoint(tmp_path):
    """A fine-tuned detector of three classes."""
    return write_checkpoint(tmp_path / "tuned.pth", tensors(), {**ARGS, "class_names": ["nut", "bolt", "gear"]})


@pytest.fixture
def mask_checkpoint(tmp_path):
    """A fine-tuned segmenter of three classes."""
    args = {**ARGS, "segmentation_head": True, "class_names": ["nut", "bolt", "gear"]}
    return write_checkpoint(tmp_path / "masks.pth", tensors(masks=2), args)


@pytest.fixture
def picture():
    """A smooth picture `(96, 140, 3)`, BGR."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    cv2 = pytest.importorskip("cv2")
    return cv2.resize(coarse, (140, 96), interpolation=cv2.INTER_CUBIC)


def make_graph(path, boxes, logits, masks=None, *, size=(64, 64), metadata=None, names=("dets", "labels", "masks")):
    """A graph with rfdetr's outputs that answers every picture alike."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    arrays = [array for array in (boxes, logits, masks) if array is not None]
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nought"], ["blank"]),
    ]
    constants, values = [numpy_helper.from_array(np.zeros((), np.float32), "nought")], []
    for name, array in zip(names, arrays, strict=False):
        shape = np.array([-1, *[1] * array.ndim], np.int64)
        constants += [
            numpy_helper.from_array(np.asarray(array, np.float32)[None], f"{name}_values"),
            numpy_helper.from_array(shape, f"{name}_shape"),
        ]
        nodes += [
            helper.make_node("Reshape", ["blank", f"{name}_shape"], [f"{name}_blank"]),
            helper.make_node("Add", [f"{name}_values", f"{name}_blank"], [name]),
        ]
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *array.shape]))
    pictures = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *size])
    graph = helper.make_graph(nodes, "rfdetr", [pictures], values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def rfdetr_kit():
    """The functions of this file, for tests that make their own files."""
    return argparse.Namespace(
        ARGS=ARGS, tensors=tensors, write_checkpoint=write_checkpoint, write_recipe=write_recipe, make_graph=make_graph
    )


@pytest.fixture(scope="session")
def golden_checkpoints(reference_data, tmp_path_factory):
    """The reference checkpoints by name, built once."""
    folder = tmp_path_factory.mktemp("rfdetr")
    names = ("rf-detr-nano", "rf-detr-seg-nano")
    return {name: write_recipe(reference_data, name, folder / f"{name}.pth") for name in names}
