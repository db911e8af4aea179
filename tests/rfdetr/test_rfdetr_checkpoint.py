"""Loading checkpoints: fine-tuned, wrapped, damaged, contradictory, malicious."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import ModelFileError, OptionError, UnsafeFileError, UnsupportedModelError
from wrapped import WAYS, wrapped

pytest.importorskip("torch")


def load(path, **options):
    return registry.load(path, backend="torch", device="cpu", **options)


def test_fine_tuned_checkpoint_has_its_names(checkpoint, picture):
    model = load(checkpoint)
    assert model.card.classes == ("nut", "bolt", "gear", "__background__")
    assert model.card.task == "object-detection"
    result = model(picture, confidence=0)[0]
    assert len(result.xyxy) == 10  # as many as queries
    assert set(result.class_id) <= {0, 1, 2, 3}  # the fourth column is background, and reported as that
    assert result.class_names == ("nut", "bolt", "gear", "__background__")
    assert (np.diff(result.confidence) <= 0).all()
    assert load(checkpoint)(picture, confidence=0, classes=["bolt"])[0].class_id.tolist() == [1] * 10


def test_segmentation_checkpoint(mask_checkpoint, picture):
    model = load(mask_checkpoint)
    assert model.card.task == "instance-segmentation"
    result = model(picture, confidence=0)[0]
    assert result.masks.dense().shape == (10, 96, 140)


def test_containers_are_alike(tmp_path, rfdetr_kit, picture):
    import torch

    made = rfdetr_kit.tensors()
    official = rfdetr_kit.write_checkpoint(tmp_path / "official.pth", made, rfdetr_kit.ARGS)
    expected = load(official)(picture, confidence=0)[0]
    lightning = tmp_path / "lightning.ckpt.pth"
    state = {f"model.{key}": torch.from_numpy(value) for key, value in made.items()}
    torch.save({"state_dict": state, "hyper_parameters": dict(rfdetr_kit.ARGS), "epoch": 3}, lightning)
    newer = tmp_path / "newer.pth"
    training = {"epochs": 3, "class_names": ["a", "b", "c"]}
    state = {f"_orig_mod.{key}": torch.from_numpy(value) for key, value in made.items()}
    torch.save({"model": state, "args": training, "model_config": dict(rfdetr_kit.ARGS)}, newer)
    wrapped_files = []
    for way in WAYS:
        wrapped_files.append(tmp_path / f"wrapped{way}.pth")
        state = wrapped({key: torch.from_numpy(value) for key, value in made.items()}, way)
        torch.save({"model": state, "args": dict(rfdetr_kit.ARGS)}, wrapped_files[-1])
    for path in (lightning, newer, *wrapped_files):
        found = load(path)(picture, confidence=0)[0]
        np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)
    assert load(newer).card.classes == ("a", "b", "c", "__background__")


def test_pictures_of_a_batch_do_not_mix(checkpoint, picture):
    model = load(checkpoint)
    batch, _ = model.preprocess([picture, picture[::2, ::3]])
    together = model.forward(batch)
    for i in range(2):
        alone = model.forward(batch[i : i + 1])
        for name, values in together.items():
            np.testing.assert_allclose(alone[name][0], values[i], atol=1e-4)


def test_batch_of_four_sizes_equals_singles(mask_checkpoint):
    rng = np.random.default_rng(5)
    pictures = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((96, 140), (33, 50), (64, 64), (200, 31))]
    model = load(mask_checkpoint)
    together = model(pictures, confidence=0)
    for picture, result in zip(pictures, together, strict=True):
        alone = model(picture, confidence=0)[0]
        # Products of other sizes are summed in another order: 1e-4 of a pixel.
        np.testing.assert_allclose(result.xyxy, alone.xyxy, atol=1e-2)
        np.testing.assert_allclose(result.confidence, alone.confidence, atol=1e-5)
        assert result.class_id.tolist() == alone.class_id.tolist()
        differing = (result.masks.dense() != alone.masks.dense()).mean()
        assert differing < 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_close(checkpoint, mask_checkpoint, picture, dtype):
    """Boxes, class scores and masks of nearly all queries; where two first-stage cells tie, queries change places."""
    import torch

    for path in (checkpoint, mask_checkpoint):
        model = load(path)
        batch, _ = model.preprocess(picture)
        expected = model.forward(batch)
        network = model._session.module.to(getattr(torch, dtype))
        with torch.inference_mode():
            found = network(torch.from_numpy(batch).to(getattr(torch, dtype)))
        assert found[0].dtype == torch.float32  # boxes keep their arithmetic
        for name, tensor in zip(expected, found, strict=True):
            assert torch.isfinite(tensor).all(), name
            difference = np.abs(tensor.float().numpy() - expected[name]).reshape(10, -1).max(1)
            assert np.median(difference) <= 0.1 * np.ptp(expected[name]), name


def test_precision_of_a_load(checkpoint, picture):
    model = load(checkpoint, precision="bf16")
    assert model.precision == "bf16"
    assert np.isfinite(model(picture, confidence=0)[0].xyxy).all()


def test_cuda_graphs_do_nothing_on_a_cpu(checkpoint, picture):
    plain, recorded = (
        load(checkpoint)(picture, confidence=0)[0],
        load(checkpoint, cuda_graphs=True)(picture, confidence=0)[0],
    )
    assert plain.xyxy.tolist() == recorded.xyxy.tolist()


@pytest.mark.gpu
def test_cuda_graphs(checkpoint, picture):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    plain = registry.load(checkpoint, backend="torch", device="cuda:0")
    recorded = registry.load(checkpoint, backend="torch", device="cuda:0", cuda_graphs=True)
    for pictures in ([picture], [picture, picture[::2]], [picture[::2]]):
        for a, b in zip(plain(pictures, confidence=0), recorded(pictures, confidence=0), strict=True):
            np.testing.assert_allclose(a.xyxy, b.xyxy, atol=0.05)


def test_input_size(checkpoint, picture):
    model = load(checkpoint, input_size=96)
    assert model.preprocess_spec.size == (96, 96)
    assert model(picture, confidence=0)[0].xyxy.shape == (10, 4)
    with pytest.raises(OptionError, match="multiples of 32"):
        load(checkpoint, input_size=100)
    with pytest.raises(OptionError):
        load(checkpoint, input_size=0)


def test_truncated(checkpoint, tmp_path):
    data = checkpoint.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelFileError):
        load(cut)


def test_a_tensor_is_missing(tmp_path, rfdetr_kit):
    for key in ("bbox_embed.layers.1.weight", "backbone.0.encoder.encoder.encoder.layer.1.mlp.fc1.bias"):
        made = rfdetr_kit.tensors()
        del made[key]
        path = rfdetr_kit.write_checkpoint(tmp_path / "missing.pth", made, rfdetr_kit.ARGS)
        with pytest.raises(ModelFileError, match=r"lacks a tensor|not a whole"):
            load(path)


def test_a_tensor_has_another_shape(tmp_path, rfdetr_kit):
    made = rfdetr_kit.tensors()
    made["transformer.decoder.layers.1.linear1.weight"] = np.zeros((128, 32), np.float32)
    path = rfdetr_kit.write_checkpoint(tmp_path / "shape.pth", made, rfdetr_kit.ARGS)
    with pytest.raises(ModelFileError, match="linear1"):
        load(path)


@pytest.mark.parametrize(
    ("name", "value"), [("dec_layers", 3), ("patch_size", 14), ("num_queries", 20), ("segmentation_head", True)]
)
def test_wrong_variant(tmp_path, rfdetr_kit, name, value):
    path = rfdetr_kit.write_checkpoint(tmp_path / "x.pth", rfdetr_kit.tensors(), {**rfdetr_kit.ARGS, name: value})
    with pytest.raises(ModelFileError, match="contradicts itself"):
        load(path)


@pytest.mark.parametrize("stages", [[3, 1], [0, 2], [1, 4]])
def test_impossible_stages(tmp_path, rfdetr_kit, stages):
    args = {**rfdetr_kit.ARGS, "out_feature_indexes": stages}
    path = rfdetr_kit.write_checkpoint(tmp_path / "x.pth", rfdetr_kit.tensors(), args)
    with pytest.raises(ModelFileError):
        load(path)


def test_unknown_sizes_without_settings(tmp_path, rfdetr_kit):
    path = rfdetr_kit.write_checkpoint(tmp_path / "x.pth", rfdetr_kit.tensors())
    with pytest.raises(UnsupportedModelError, match="no released RF-DETR"):
        load(path)


@pytest.mark.parametrize("key", ["backbone.0.encoder.encoder.embeddings.register_tokens", "keypoint_embed.weight"])
def test_parts_that_are_not_run(tmp_path, rfdetr_kit, key):
    made = {**rfdetr_kit.tensors(), key: np.zeros((1, 4, 64), np.float32)}
    path = rfdetr_kit.write_checkpoint(tmp_path / "x.pth", made, rfdetr_kit.ARGS)
    with pytest.raises(UnsupportedModelError, match="not run here"):
        load(path)


def test_more_names_than_classes(tmp_path, rfdetr_kit):
    args = {**rfdetr_kit.ARGS, "class_names": list("abcdefg")}
    path = rfdetr_kit.write_checkpoint(tmp_path / "x.pth", rfdetr_kit.tensors(), args)
    with pytest.raises(ModelFileError, match="more class names"):
        load(path)


class Evil:
    def __reduce__(self):
        return os.system, ("exit 7",)


def test_malicious(checkpoint, tmp_path):
    evil = tmp_path / "evil.pth"
    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(evil, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                data = pickle.dumps({"model": Evil()}, protocol=2)
            target.writestr(item.filename, data)
    with pytest.raises(UnsafeFileError, match="system"):
        load(evil)
