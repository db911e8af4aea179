"""What the caller has set torch to does not change what a network gives, nor is it changed by a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lensmount.contracts.session import BackendOptions, OpenRequest, TensorSpec, TorchNetwork  # noqa: E402
from lensmount.specs import Artifact, ModelPackage  # noqa: E402
from lensmount_torch.backend import open_session  # noqa: E402


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast for any": lambda: torch.amp.autocast("cpu"),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "gradients": torch.enable_grad,
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "deterministic": deterministic,
}


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


def ambient() -> tuple[Any, ...]:
    return (
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
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
