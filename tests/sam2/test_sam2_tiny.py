"""Small networks with seeded weights, against transformers' answers (`tests/goldens/make_sam2_tiny.py`).

Tolerance 1e-3 of each output's range: float32 sums in another order. In video transformers keeps memories in float32
and this plugin, like the authors' code, in bfloat16, whose spacing is 2**-8 of a value: 2e-2 of the range there.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

import sam2_tiny
from lensmount import registry
from lensmount.errors import ClosedError, UnsupportedModelError
from wrapped import WAYS, wrapped

POINT, BOX = [[40.0, 60.0]], [70.0, 50.0, 110.0, 110.0]


@pytest.fixture(scope="module")
def wanted():
    with np.load(sam2_tiny.OUTPUTS) as arrays:
        return {key: arrays[key] for key in arrays.files}


def near(value, expected, share=1e-3):
    value = np.asarray(value)
    assert value.shape == expected.shape
    size = np.ptp(expected) or np.abs(expected).max()  # a single value has no range
    assert np.abs(value - expected).max() <= share * size


def test_folder_is_recognised(tiny_model):
    assert tiny_model.image_size == sam2_tiny.SIDE
    assert tiny_model.card.setting("version") == "2.1"
    assert tiny_model.card.setting("variant") == "custom"
    assert tiny_model.device == "cpu"


def test_embedding(tiny_model, wanted):
    (embedding,) = tiny_model.embed_images(sam2_tiny.frames()[0], color="rgb")
    for name, value in zip(("embedding", "high_res_0", "high_res_1"), embedding.maps, strict=True):
        near(value, wanted[name])


@pytest.mark.parametrize("way", WAYS)
def test_wrappers_of_training_change_nothing(tmp_path, wanted, way):
    from safetensors.numpy import load_file, save_file

    folder = sam2_tiny.write_folder(tmp_path / "folder")
    save_file(wrapped(load_file(folder / "model.safetensors"), way), folder / "model.safetensors")
    with registry.load(folder, backend="torch", device="cpu") as model:
        (embedding,) = model.embed_images(sam2_tiny.frames()[0], color="rgb")
    near(embedding.maps[0], wanted["embedding"])


def test_prompts(tiny_model, wanted):
    frame = sam2_tiny.frames()[0]
    (result,) = tiny_model(frame, point_coordinates=POINT, color="rgb")
    near(result.scores, wanted["point_scores"])
    near(result.best.logits, np.clip(wanted["point_low"], -32, 32))
    (result,) = tiny_model(frame, boxes=BOX, multi_mask_output=False, color="rgb")
    near(result.scores, wanted["box_scores"])
    near(result.logits, np.clip(wanted["box_low"], -32, 32))


def test_tracking_beside_graphs(tiny_folder, wanted, monkeypatch):
    """Pictures on onnxruntime; the tracker's networks in torch, where it is installed."""
    from lensmount_sam2 import runner

    with registry.load(tiny_folder, backend="onnx", device="cpu") as model:
        follow(model, wanted)
        tracker = model.track()
    with pytest.raises(ClosedError):
        tracker.prompt(sam2_tiny.frames()[0], points=POINT, object_id=1)
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    with (
        registry.load(tiny_folder, backend="onnx", device="cpu") as model,
        pytest.raises(UnsupportedModelError, match="torch is not installed"),
    ):
        model.track()


def test_video(tiny_model, wanted):
    follow(tiny_model, wanted)


def follow(model, wanted):
    frames = sam2_tiny.frames()
    tracker = model.track(total_frames=len(frames))
    for index, frame in enumerate(frames):
        if index == 0:
            tracker.prompt(frame, points=POINT, object_id=1, color="rgb")
            tracker.prompt(frame, boxes=BOX, object_id=2, color="rgb")
        result = tracker.step(frame, color="rgb")
        assert result.frame == index
        expected = wanted["video_low"][index].reshape(2, *result.logits.shape[1:])
        near(result.logits, np.clip(expected, -32, 32), 2e-2)
        presence = wanted["video_presence"][index].reshape(2)
        assert np.abs(result.scores - 1 / (1 + np.exp(-presence))).max() < 1e-2


def test_official_names_mean_the_same(tmp_path, tiny_model):
    path = sam2_tiny.write_official(tmp_path / "weights.pt")
    with pytest.raises(UnsupportedModelError, match="none of the released ones"):
        registry.load(path)
    from lensmount_reading import read_checkpoint
    from lensmount_sam2.checkpoint import official_names

    official = official_names(read_checkpoint(path).tensors)
    renamed = official_names({key: value.shape for key, value in sam2_tiny.weights().items()})
    both = {key for key in official if not key.startswith("sam_prompt_encoder.point_embed")}
    assert both == {key for key in renamed if not key.startswith("sam_prompt_encoder.point_embed")}


def test_all_official_names_come_from_the_other_layout(reference_data):
    """The released checkpoint's own list of keys, against transformers' keys renamed."""
    import json

    manifest = json.loads((reference_data / "goldens" / "sam2.1_hiera_tiny.recipe.json").read_text())
    # The small network changes stage at other blocks than the released one: block numbers are not compared.
    official = {re.sub(r"\.blocks\.\d+\.", ".blocks.*.", entry["key"]) for entry in manifest["tensors"]}
    from lensmount_sam2.hf_keys import official_key

    for key in json.loads(sam2_tiny.KEYS.read_text()):
        name = official_key(key)
        if name is not None and name != "sam_prompt_encoder.point_embed.weight":
            assert re.sub(r"\.blocks\.\d+\.", ".blocks.*.", name) in official, key


def test_other_input_size(tiny_folder):
    with registry.load(tiny_folder, image_size=64) as model:
        (result,) = model(sam2_tiny.frames()[0], point_coordinates=POINT)
        assert result.logits.shape == (3, 16, 16)
        assert result.dense().shape == (3, sam2_tiny.SIDE, sam2_tiny.SIDE)


@pytest.mark.slow
@pytest.mark.parametrize("exported", [False, True])
def test_onnx_equals_torch_without_torch(tiny_folder, tiny_model, tmp_path, exported):
    """Encoder and decoder as graphs, of the weights or exported, in a process in which torch cannot be imported."""
    pytest.importorskip("onnxruntime")
    import subprocess
    import sys

    written = registry.export(tiny_folder, to="onnx", output=tmp_path / "x", dynamic=True) if exported else tiny_folder
    cv2 = pytest.importorskip("cv2")
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), sam2_tiny.frames()[0][..., ::-1])
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from lensmount import registry
from lensmount.errors import UnsupportedModelError
model = registry.load({str(written)!r}, backend="onnx")
one = model({str(picture)!r}, point_coordinates={POINT})[0]
many = model([{str(picture)!r}] * 2, boxes=np.array([{BOX}, [10, 10, 60, 60]]), multi_mask_output=False)[1]
refined = model({str(picture)!r}, point_coordinates={POINT}, mask_input=one.logits[:1])[0]
try:
    model.track()
    raise SystemExit("tracked without torch")
except UnsupportedModelError:
    pass
np.savez({str(tmp_path / "answers.npz")!r}, one=one.logits, many=many.logits, refined=refined.logits)
"""
    # The device's way is torch's: whoever asks for it for all tests does not mean this one.
    environ = {**os.environ, "LENSMOUNT_DEVICE_PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environ)
    answers = np.load(tmp_path / "answers.npz")
    (one,) = tiny_model(picture, point_coordinates=POINT)
    boxes = np.array([BOX, [10, 10, 60, 60]])
    (many,) = tiny_model(picture, boxes=boxes, multi_mask_output=False)
    (refined,) = tiny_model(picture, point_coordinates=POINT, mask_input=one.logits[:1])
    for name, result in (("one", one), ("many", many), ("refined", refined)):
        near(answers[name], result.logits)


def test_peer_package(tmp_path, tiny_model, monkeypatch):
    """A folder of inference-models: model.pt and sam_configuration.json; the tensors say which network it is."""
    import json

    from lensmount_sam2 import geometry

    folder = tmp_path / "package"
    folder.mkdir()
    sam2_tiny.write_official(folder / "model.pt")
    (folder / "sam_configuration.json").write_text(json.dumps({"version": "sam2.1_hiera_t"}))
    config = {
        "model_architecture": "sam2",
        "task_type": "interactive-instance-segmentation",
        "backend_type": "torch",
    }
    (folder / "model_config.json").write_text(json.dumps(config))
    # The small trunk is none of the released ones; here it counts as one.
    known = {(16, (1, 2, 2, 1)): ("small", 1, (8, 4, 14, 7), (4,))}
    monkeypatch.setattr(geometry, "RELEASED", {**geometry.RELEASED, **known})
    frame = sam2_tiny.frames()[0]
    with registry.load(folder, image_size=sam2_tiny.SIDE) as model:
        near(model(frame, boxes=BOX)[0].logits, tiny_model(frame, boxes=BOX)[0].logits, 1e-5)
