"""What the plugin says of itself, what it recognises, and what it leaves alone."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_owlv2.network import box_bias

IDS = ("base-patch16", "base-patch16-ensemble", "base-patch16-finetuned",
       "large-patch14", "large-patch14-ensemble", "large-patch14-finetuned")  # fmt: skip


@pytest.mark.parametrize("name", IDS)
def test_ids(name):
    card = registry.describe(f"owlv2/{name}")
    assert card.architecture == "owlv2" and card.licence == "Apache-2.0"
    assert registry.describe(f"google/owlv2-{name}").id == card.id
    (artifact,) = card.packages[0].artifacts
    assert artifact.uri == f"hf://google/owlv2-{name}/model.safetensors"
    assert (artifact.sha256 is not None) == (artifact.confidence == "third-party") == (name == "base-patch16-ensemble")


def test_the_default():
    assert registry.describe("owlv2").id == "owlv2/base-patch16-ensemble"


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from lensmount import registry; assert registry.describe('owlv2'); "
        "print([m for m in ('torch', 'numpy', 'cv2', 'tokenizers', 'lensmount_owlv2.model') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_and_a_bare_file(tiny, tmp_path):
    card = registry.describe(tiny)
    assert (card.architecture, card.id, card.notes) == ("owlv2", "tiny-owl", ())
    bare = tmp_path / "weights.safetensors"
    shutil.copyfile(tiny / "model.safetensors", bare)
    card = registry.describe(bare)
    assert card.architecture == "owlv2" and "64 wide" in card.notes[0]


def test_a_configuration_that_does_not_fit(tiny, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(tiny, folder)
    (folder / "config.json").write_text('{"vision_config": {"num_attention_heads": 7}}')
    with pytest.raises(UnsupportedModelError, match="does not fit its tensors"):
        registry.describe(folder)
    (folder / "config.json").write_text("[")
    with pytest.raises(ModelFileError, match="cannot be read"):
        registry.describe(folder)


def test_preprocessing_of_a_folder(tiny, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(tiny, folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    with registry.load(folder, backend="torch", device="cpu") as model:
        assert model.preprocess_spec.mean == (0.5, 0.5, 0.5)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    with pytest.raises(ModelFileError, match="preprocessor_config"):
        registry.load(folder, backend="torch", device="cpu")


def test_boxes_begin_at_their_patch():
    """A head of zeros gives a box of one patch at its lower right corner."""
    boxes = 1 / (1 + np.exp(-box_bias(4)))
    assert boxes.shape == (16, 4)
    assert boxes[5].tolist() == pytest.approx([0.5, 0.5, 0.25, 0.25], abs=1e-3)
    assert boxes[4].tolist() == pytest.approx([0.25, 0.5, 0.25, 0.25], abs=1e-3)
