"""What the caller has set torch to does not change what a network gives, nor is it changed by a run."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ambient_torch import STATES, ambient, default_dtype  # noqa: E402
from lensmount.contracts.session import BackendOptions, OpenRequest, TensorSpec, TorchNetwork  # noqa: E402
from lensmount.specs import Artifact, ModelPackage  # noqa: E402
from lensmount_torch.backend import open_session  # noqa: E402


class Net(torch.nn.Module):
    """Products, convolution, and tensors made of the defaults while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3)
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, images: Any) -> Any:
        made = self.convolution(images).mean((2, 3))
        return self.linear(made) @ torch.linspace(0, 1, 8, device=images.device).outer(torch.ones(8))


def session() -> Any:
    torch.manual_seed(3)
    network = TorchNetwork(
        module=Net(),
        inputs=(TensorSpec("images", ("batch", 3, 16, 16), "float32"),),
        outputs=(TensorSpec("out", ("batch", 8), "float32"),),
    )
    package = ModelPackage(name="net", format="torch", artifacts=(Artifact(name="w", uri="file://w"),))
    return open_session(
        OpenRequest(
            package=package, path=None, device="cpu", precision="fp32", options=BackendOptions(), network=network
        )
    )


@pytest.mark.parametrize("state", STATES)
def test_a_network_gives_the_same(state: str) -> None:
    feeds = {"images": np.random.default_rng(0).random((2, 3, 16, 16), np.float32)}
    opened = session()
    expected = opened.run(feeds)["out"]
    with STATES[state]():
        before = ambient()
        made = opened.run(feeds)["out"]
        tensors = opened.run_tensors(feeds)["out"]
        assert ambient() == before
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected)
    assert tensors.dtype == torch.float32
    np.testing.assert_array_equal(tensors.numpy(), expected)


def test_threads_share_the_default_dtype() -> None:
    feeds = {"images": np.random.default_rng(0).random((2, 3, 16, 16), np.float32)}
    opened = session()
    expected = opened.run(feeds)["out"]
    wrong: list[int] = []

    def work() -> None:
        for i in range(30):
            if not np.array_equal(opened.run(feeds)["out"], expected):
                wrong.append(i)

    with default_dtype(torch.float64):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_default_dtype() == torch.float64
    assert wrong == []
