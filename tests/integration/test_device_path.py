"""Every plugin's model prepares and finishes in torch as it does on the host, on torch's CPU device."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import device_models  # noqa: E402 - after the skip
from lensmount import registry  # noqa: E402
from lensmount_vision.images.on_device import DeviceImage  # noqa: E402


def test_onnx_on_a_cpu_imports_neither_torch_nor_what_needs_it():
    code = (
        "import sys; from lensmount import registry\n"
        "model = registry.load('shapes-nano', backend='onnx', device='cpu')\n"
        "import numpy; model(numpy.zeros((40, 60, 3), numpy.uint8))\n"
        "print([name for name in sys.modules if name == 'torch' or name.startswith('lensmount_vision.device')])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "LENSMOUNT_DEVICE_PATH"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", device_models.NAMES)
def test_both_ways_agree(name: str, tmp_path, embedding_goldens):
    path, options = device_models.write(name, tmp_path, embedding_goldens)
    given = device_models.pictures()
    answers = []
    for way in (False, True):
        with registry.load(path, backend="torch", device="cpu", device_path=way, **options) as model:
            answers.append(device_models.ask(name, model, given))
    for one, other in zip(*answers, strict=True):
        found = device_models.drift(one, other)
        # A grey step in the pictures is what may differ; untrained networks pass it on in full.
        assert found
        assert max(found.values()) < 0.02, found


@pytest.mark.parametrize("name", ["yolo", "rfdetr", "clip"])
def test_pictures_on_the_device_never_visit_the_host(name: str, tmp_path, embedding_goldens, monkeypatch):
    path, options = device_models.write(name, tmp_path, embedding_goldens)
    given = device_models.pictures()
    there = [DeviceImage(torch.from_numpy(picture.copy()), "bgr") for picture in given]
    with registry.load(path, backend="torch", device="cpu", device_path=True, **options) as model:
        expected = device_models.ask(name, model, given)
        monkeypatch.setattr(DeviceImage, "pixels", property(lambda self: pytest.fail("it visited the host")))
        made = device_models.ask(name, model, there)
    for one, other in zip(expected, made, strict=True):
        for key, value in one.numbers.items():
            np.testing.assert_allclose(other.numbers[key], value, atol=1e-4)
