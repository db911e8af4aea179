"""How the contract of backends opens and runs graphs; the promises are in `backend_contract`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lensmount.contracts.session import OpenRequest, TensorSpec
from lensmount.specs import Artifact, Backend, BackendStatus, ModelPackage
from lensmount.specs.imports import import_string
from lensmount_testing.graphs import GRAPHS, Array, Graph, as_network

Open = Callable[..., Any]


class BackendBase:
    """What the tests of a backend need; see `BackendContract`."""

    backend: ClassVar[str] = ""
    device: ClassVar[str] = "cpu"
    precision: ClassVar[str] = "fp32"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float16", "uint8", "int64")
    absolute: ClassVar[float] = 1e-5
    light_modules: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture
    def descriptor(self) -> Backend:
        """The backend's descriptor."""
        from lensmount.registry import default

        found = default().index.backends
        assert self.backend in found, f"no backend {self.backend!r} is registered, only {', '.join(found)}"
        return found[self.backend]

    @pytest.fixture
    def probe(self, descriptor: Backend) -> Callable[..., Any]:
        """Its probe."""
        found: Callable[..., Any] = import_string(descriptor.probe, f"backend {descriptor.name!r}")
        return found

    @pytest.fixture
    def opener(self, descriptor: Backend, probe: Callable[..., Any]) -> Callable[[OpenRequest], Any]:
        """Its opener; skips where the backend says that it cannot run here."""
        from lensmount.machine.environment import detect

        status = probe(detect())
        if isinstance(status, BackendStatus) and not status.usable:
            pytest.skip(f"backend {descriptor.name!r} cannot run here: {status.reason} ({status.fix})")
        found: Callable[[OpenRequest], Any] = import_string(descriptor.opener, f"backend {descriptor.name!r}")
        return found

    @pytest.fixture
    def open_graph(self, descriptor: Backend, opener: Callable[[OpenRequest], Any], tmp_path: Path) -> Iterator[Open]:
        """Opens one of the kit's graphs; sessions are closed after the test."""
        opened: list[Any] = []

        def open_(name: str, **changes: Any) -> Any:
            opened.append(opener(self.request(descriptor, GRAPHS[name], tmp_path, **changes)))
            return opened[-1]

        yield open_
        for session in opened:
            session.close()

    def request(self, descriptor: Backend, graph: Graph, folder: Path, **changes: Any) -> OpenRequest:
        """What the core would ask for; override it for a format of your own.

        Args:
            descriptor: The backend.
            graph: What to open.
            folder: Where files may be written.
            **changes: Fields of the request to set otherwise.
        """
        as_file = "onnx" in descriptor.formats
        if not as_file and "torch" not in descriptor.formats:
            pytest.fail(f"override `request`: the kit has no graphs of format {descriptor.formats}")
        path = folder / f"{graph.name}.onnx"
        if as_file:
            path.write_bytes(graph.onnx)
        precision = graph.precision if as_file and graph.precision != "fp32" else self.precision
        fields: dict[str, Any] = {
            "package": package("onnx" if as_file else "torch", path, precision),
            "path": path if as_file else None,
            "device": self.device,
            "precision": precision,
            "network": None if as_file else as_network(graph),
        }
        return OpenRequest(**{**fields, **changes})

    def require_dtype(self, graph: Graph) -> None:
        """Skips where the backend does not take the graph's inputs."""
        missing = {spec.dtype for spec in graph.inputs} - set(self.dtypes)
        if missing:
            pytest.skip(f"it does not take {', '.join(missing)}")

    def require_spec(self, spec: TensorSpec, wanted: TensorSpec, what: str) -> None:
        """Compares a declared input or output with the graph's."""
        half = {spec.dtype, wanted.dtype} == {"float16", "float32"} and what == "outputs"  # torch casts them back
        assert half or spec.dtype == wanted.dtype, f"{what} {spec.name!r} is {spec.dtype}, the graph's {wanted.dtype}"
        assert len(spec.shape) == len(wanted.shape), f"{what} {spec.name!r} has shape {spec.shape}, not {wanted.shape}"
        for size, other in zip(spec.shape, wanted.shape, strict=True):
            right = size == other if isinstance(other, int) else not isinstance(size, int)
            assert right, f"{what} {spec.name!r} has shape {spec.shape}, the graph's is {wanted.shape}"

    def require_right(self, session: Any, graph: Graph, *, batch: int = 2, seed: int = 0) -> None:
        """Runs the graph and compares the outputs with numpy's."""
        feeds = graph.feeds(batch, seed)
        wanted = graph.reference({name: array.copy() for name, array in feeds.items()})
        found: dict[str, Array] = session.run(feeds)
        assert list(found) == [spec.name for spec in session.outputs], f"outputs are {list(found)}"
        for spec in session.outputs:
            array = found[spec.name]
            assert isinstance(array, np.ndarray), f"output {spec.name!r} is {type(array).__name__}, no numpy array"
            assert str(array.dtype) == spec.dtype, f"output {spec.name!r} is {array.dtype}, declared {spec.dtype}"
            assert array.shape == wanted[spec.name].shape, f"output {spec.name!r} has shape {array.shape}"
            absolute = 4e-3 if graph.precision == "fp16" else self.absolute
            np.testing.assert_allclose(
                array.astype(np.float64), wanted[spec.name].astype(np.float64), atol=absolute, rtol=self.absolute
            )


def package(kind: str, path: Path, precision: str) -> ModelPackage:
    """The package that a graph would come in."""
    artifact = Artifact(name=path.name, uri=path.absolute().as_uri())
    return ModelPackage(name="kit", format=kind, artifacts=(artifact,), precision=precision)
