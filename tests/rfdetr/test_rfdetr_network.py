"""The network itself: equal in torch and as a graph at any size and layout, and trainable."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lensmount import registry
from lensmount.contracts import TensorSpec
from lensmount_networks import Network, torch_module
from lensmount_networks.layers import declared
from lensmount_rfdetr.layout import read_layout
from lensmount_rfdetr.networks.backbone import resampling
from lensmount_rfdetr.networks.detector import RFDETR
from lensmount_rfdetr.networks.weights import fit
from lensmount_rfdetr.postprocess import Filter, keep_pairs

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 5, 7, 24, 37, 96])
@pytest.mark.parametrize("count", [2, 4, 24, 37])
def test_positions_are_resampled_as_torch_does_it(count, wanted):
    table = torch.randn(1, 1, count, 6, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(table, size=(wanted, 6), mode="bicubic", antialias=True)
    found = resampling(count, wanted).astype(np.float64) @ table[0, 0].numpy()
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-6)


def tiny(kit, **sizes):
    """Layout and tensors of a small network."""
    made = kit.tensors(**sizes)
    facts = {**kit.ARGS, "segmentation_head": bool(sizes.get("masks"))}
    return read_layout({name: array.shape for name, array in made.items()}, facts, "tiny"), made


def random_tensors(layer):
    random = np.random.default_rng(0)
    found = {}
    for name, _, _, value in declared(layer):
        if value.array is None:
            scale = 1.0 if len(value.shape) == 1 else np.prod(value.shape[1:]) ** -0.5
            found[name] = (scale * random.standard_normal(value.shape)).astype(np.float32)
            if name.endswith(("norm.weight", "bn.weight")) or (".norm" in name and name.endswith("weight")):
                found[name] = 1 + 0.1 * found[name]
    return found


def both(layout, size, tensors=None, batch=2):
    """Answers of torch, and of the graph on onnxruntime, to the same noise."""
    layer = partial(RFDETR, layout, size)
    outputs = [
        TensorSpec("dets", ("batch", layout.queries, 4), "float32"),
        TensorSpec("labels", ("batch", layout.queries, layout.columns), "float32"),
    ]
    if layout.mask_blocks:
        masks = (size[0] // layout.mask_ratio, size[1] // layout.mask_ratio)
        outputs.append(TensorSpec("masks", ("batch", layout.queries, *masks), "float32"))
    network = Network(
        layer=layer,
        tensors=random_tensors(layer()) if tensors is None else fit(layer(), layout, tensors, "tiny"),
        inputs=(TensorSpec("input", ("batch", 3, *size), "float32"),),
        outputs=tuple(outputs),
    )
    pictures = np.random.default_rng(1).standard_normal((batch, 3, *size)).astype(np.float32)
    with torch.inference_mode():
        expected = [made.numpy() for made in network.torch().module(torch.from_numpy(pictures))]
    graph = network.graph()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in graph.initializers.values()]
    options.add_external_initializers(list(graph.initializers), values)
    session = ort.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    return expected, session.run(None, {"input": pictures})


def compare(expected, found):
    for wanted, got in zip(expected, found, strict=True):
        assert got.shape == wanted.shape
        worst = np.abs(got - wanted).reshape(wanted.shape[0] * wanted.shape[1], -1).max(1)
        assert np.median(worst) < 1e-4 and np.quantile(worst, 0.9) < 2e-3  # where cells tie, queries change places


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (160, 32), (32, 32)])
@pytest.mark.parametrize("masks", [0, 2])
def test_one_answer_at_any_size(rfdetr_kit, size, masks):
    layout, tensors = tiny(rfdetr_kit, masks=masks, classes=7)
    compare(*both(layout, size, tensors))


@pytest.mark.parametrize("levels", [(1.0,), (2.0, 0.5), (2.0, 1.0, 0.5)])
@pytest.mark.parametrize("windows", [1, 4])
def test_one_answer_in_any_layout(rfdetr_kit, levels, windows):
    layout, _ = tiny(rfdetr_kit)
    layout = replace(layout, levels=levels, windows=windows, stages=(1, 2, 3), points=3, bottlenecks=2)
    compare(*both(layout, (128, 64)))


def test_queries_without_a_cell(rfdetr_kit, tmp_path, picture):
    """More queries than cells: the rest start from boxes of the weights' own, of negative sides perhaps."""
    made = rfdetr_kit.tensors()
    made["refpoint_embed.weight"][4:10] = [[0.5, 0.5, -0.4, 0.3]] * 6
    path = rfdetr_kit.write_checkpoint(tmp_path / "few.pth", made, rfdetr_kit.ARGS)
    for backend in ("torch", "onnx"):
        model = registry.load(path, backend=backend, device="cpu", input_size=32)
        raw = model.forward(model.preprocess([picture])[0])
        assert (raw["dets"][0, :, 2] < 0).sum() == 6
        (result,) = model(picture, confidence=0)
        assert len(result) == 10 and (result.xyxy[:, 2:] >= result.xyxy[:, :2]).all()


def test_boxes_inside_out_are_a_fault_where_all_are():
    boxes, logits = np.full((3, 4), 0.5, np.float32), np.ones((3, 2), np.float32)
    wanted = Filter(confidence=0.5, per_class=None, max_detections=9, classes=None)
    boxes[:2, 2] = -0.5
    assert set(keep_pairs(boxes, logits, wanted, 2).queries.tolist()) == {2}
    boxes[:, 3] = -0.5
    assert set(keep_pairs(boxes, logits, wanted, 2).queries.tolist()) == {0, 1, 2}


def trainable(kit, masks=0):
    layout, tensors = tiny(kit, masks=masks, groups=3)
    layer = RFDETR(layout, (64, 64), training=True)
    module = torch_module(layer, fit(layer, layout, tensors, "tiny", training=True)).requires_grad_(True)
    inference = RFDETR(layout, (64, 64))
    return module, torch_module(inference, fit(inference, layout, tensors, "tiny")), tensors


def spread(found):
    """A loss that all outputs are in."""
    if isinstance(found, torch.Tensor):
        return found.float().square().mean()
    return sum(map(spread, found.values() if isinstance(found, dict) else found))


@pytest.mark.parametrize("masks", [0, 2])
def test_training_reaches_every_parameter(rfdetr_kit, masks):
    module, inference, tensors = trainable(rfdetr_kit, masks)
    pictures = torch.randn(2, 3, 64, 64)
    found = module.train()(pictures)
    assert found["pred_logits"].shape == (2, 30, 4) and found["pred_boxes"].shape == (2, 30, 4)
    assert len(found["aux_outputs"]) == 1 and found["enc_outputs"]["pred_boxes"].shape == (2, 30, 4)
    spread(found).backward()
    unreached = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert unreached == []
    # What is trained is saved under the names that it was read under.
    assert set(module.state_dict()) <= set(tensors)
    module.eval()
    with torch.inference_mode():
        for one, other in zip(module(pictures), inference(pictures), strict=True):
            assert torch.allclose(one, other, atol=2e-4)


def test_groups_of_queries_do_not_see_one_another(rfdetr_kit):
    module, inference, _ = trainable(rfdetr_kit)
    pictures = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        every = module.train()(pictures)
        boxes, logits = inference(pictures)
    assert torch.allclose(every["pred_boxes"][:, :10], boxes, atol=2e-4)
    assert torch.allclose(every["pred_logits"][:, :10], logits, atol=2e-4)


def test_checkpointed_blocks_give_the_same_gradients(rfdetr_kit):
    from torch.utils.checkpoint import checkpoint

    pictures, found = torch.randn(1, 3, 64, 64), []
    for checkpointed in (False, True):
        module, _, _ = trainable(rfdetr_kit)
        if checkpointed:
            for block in module.backbone[0].encoder.encoder.encoder.layer:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        spread(module.train()(pictures)).backward()
        found.append({name: p.grad for name, p in module.named_parameters()})
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-6), name
