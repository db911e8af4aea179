"""A backend that keeps every promise, written in numpy: it knows the kit's graphs by their bytes. Light to import."""

from __future__ import annotations

from lensmount.backend.devices import requested_threads, split_device
from lensmount.contracts.session import check_feeds
from lensmount.errors import BackendError, ClosedError, DeviceError, ModelFileError
from lensmount.specs import Backend, BackendStatus

DESCRIPTOR = Backend(name="numpy", formats=("onnx",), probe="numpy_backend:probe", opener="numpy_backend:open_session")


def probe(environment):
    if not environment.version("numpy"):
        return BackendStatus(usable=False, reason="numpy is not installed", fix="pip install numpy")
    return BackendStatus(usable=True, version="1", devices=("cpu",), precisions=(("cpu", ("fp32", "fp16")),))


def heavy_probe(environment):
    import numpy

    return BackendStatus(usable=True, version=numpy.__version__, devices=("cpu",), precisions=(("cpu", ("fp32",)),))


def asking_probe(environment):
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", ""], check=True)
    return probe(environment)


def find_graph(path):
    from lensmount_testing.graphs import GRAPHS

    if path is None or not path.is_file():
        raise ModelFileError("there is no graph", found=str(path))
    content = path.read_bytes()
    for graph in GRAPHS.values():
        if graph.onnx == content:
            return graph
    raise ModelFileError(f"{path} is no graph", found=f"{len(content)} bytes")


def open_session(request):
    requested_threads(request)
    if split_device(request.device) != ("cpu", 0):
        raise DeviceError("there is no such device", found=request.device, expected="cpu")
    return NumpySession(find_graph(request.path), request)


class NumpySession:
    backend = "numpy"
    provider = "numpy"

    def __init__(self, graph, request):
        self.graph = graph
        self.closed = False
        self.device, self.precision = "cpu", graph.precision
        self.inputs, self.outputs, self.metadata = graph.inputs, graph.outputs, dict(graph.metadata)

    def compute(self, feeds):
        return self.graph.reference(feeds)

    def check(self, feeds):
        check_feeds(self.inputs, feeds, f"graph {self.graph.name!r}")

    def run(self, feeds):
        if self.closed:
            raise ClosedError("the session was closed")
        self.check(feeds)
        try:
            return self.compute(feeds)
        except ValueError as error:
            raise BackendError("numpy failed", found=str(error)) from error

    def close(self):
        self.closed = True
