"""A backend that keeps every promise, and for each promise one that breaks it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import numpy_backend
from contract_cases import Case, classes
from lensmount.backend.devices import requested_threads, split_device
from lensmount.contracts.session import TensorSpec
from lensmount.errors import BackendError, DeviceError
from lensmount.specs import BackendStatus
from lensmount_testing import BackendContract
from numpy_backend import DESCRIPTOR, NumpySession, find_graph, open_session


def body(session=NumpySession, opener=None, probe=None, name=None):
    """A class body that tests a backend of this session, opener or probe."""

    def opens(request):
        requested_threads(request)
        if split_device(request.device) != ("cpu", 0):
            raise DeviceError("there is no such device", found=request.device)
        return session(find_graph(request.path), request)

    @pytest.fixture
    def descriptor(self):
        return replace(DESCRIPTOR, probe=f"numpy_backend:{name}") if name else DESCRIPTOR

    made = {"descriptor": descriptor}
    if session is not NumpySession or opener is not None:
        made["opener"] = pytest.fixture(lambda self: opener or opens)
    if probe is not None:
        made["probe"] = pytest.fixture(lambda self: probe)
    return made


def status(**changes):
    said = BackendStatus(usable=True, version="1", devices=("cpu",), precisions=(("cpu", ("fp32",)),))
    return lambda environment: replace(said, **changes)


def derived(**members):
    return type("Broken", (NumpySession,), members)


def with_init(change):
    def init(self, graph, request):
        NumpySession.__init__(self, graph, request)
        change(self, request)

    return derived(__init__=init)


class NoProvider(NumpySession):
    provider = property()


def renamed(self, request):
    self.inputs = tuple(TensorSpec(f"input_{i}", spec.shape, spec.dtype) for i, spec in enumerate(self.inputs))


def widened(self, request):
    self.inputs = tuple(replace(spec, dtype="float32") for spec in self.inputs)


def frozen_batch(self, request):
    self.inputs = tuple(replace(spec, shape=(1, *spec.shape[1:])) for spec in self.inputs)


def lazily(request):
    """Looks at the file at the first run only."""
    if split_device(request.device) != ("cpu", 0):
        raise DeviceError("there is no such device", found=request.device)
    return object()


def raw_opener(request):
    data = request.path.read_bytes()
    return NumpySession(find_graph(request.path), request) if data else None


def any_device(request):
    requested_threads(request)
    return NumpySession(find_graph(request.path), request)


def any_threads(request):
    return NumpySession(find_graph(request.path), request)


def nudged(self, feeds):
    return {name: value + np.asarray(1e-3, value.dtype) for name, value in self.graph.reference(feeds).items()}


def doubled(self, feeds):
    return {name: value.astype(np.float64) for name, value in self.graph.reference(feeds).items()}


def listed(self, feeds):
    return {name: value.tolist() for name, value in self.graph.reference(feeds).items()}


class FirstBatch(NumpySession):
    """Plans its buffers for the first batch that it sees."""

    planned = None

    def compute(self, feeds):
        rows = len(next(iter(feeds.values())))
        self.planned = self.planned or rows
        if rows > self.planned:
            raise ValueError(f"planned for {self.planned}")
        return self.graph.reference(feeds)


class Pads(NumpySession):
    def check(self, feeds):
        return


class Casts(NumpySession):
    def run(self, feeds):
        if set(feeds) != {spec.name for spec in self.inputs}:
            raise BackendError("wrong names")
        cast = {spec.name: np.asarray(feeds[spec.name], spec.dtype) for spec in self.inputs}
        return NumpySession.run(self, cast)


class RaisesKeys(NumpySession):
    def run(self, feeds):
        return NumpySession.run(self, {spec.name: feeds[spec.name] for spec in self.inputs})


class RaisesRaw(NumpySession):
    def run(self, feeds):
        self.check(feeds)
        return self.compute(feeds)


class DiesOnce(NumpySession):
    def run(self, feeds):
        try:
            return NumpySession.run(self, feeds)
        except BackendError:
            self.closed = True
            raise


class Writable(NumpySession):
    def compute(self, feeds):
        for array in feeds.values():
            array.flags.writeable = True
        return self.graph.reference(feeds)


class Contiguous(NumpySession):
    def compute(self, feeds):
        if not all(array.flags.c_contiguous for array in feeds.values()):
            raise ValueError("arrays must be contiguous")
        return self.graph.reference(feeds)


class Normalises(NumpySession):
    def compute(self, feeds):
        found = self.graph.reference(feeds)
        for array in feeds.values():
            array /= 2
        return found


class PassesOn(NumpySession):
    def compute(self, feeds):
        return dict(zip((s.name for s in self.outputs), feeds.values(), strict=False)) | (
            self.graph.reference(feeds) if self.graph.name != "identity" else {}
        )


class OneBuffer(NumpySession):
    buffers = None

    def compute(self, feeds):
        found = self.graph.reference(feeds)
        self.buffers = self.buffers or {}
        for name, array in found.items():
            kept = self.buffers.get(name)
            if kept is None or kept.shape != array.shape:
                kept = self.buffers[name] = np.empty_like(array)
            kept[...] = array
        return dict(self.buffers)


class LendsWeights(NumpySession):
    def compute(self, feeds):
        from lensmount_testing.graphs import GRAPHS

        found = self.graph.reference(feeds)
        self.table = getattr(self, "table", GRAPHS["weights"].tensors["constant"].copy())
        return {name: self.table if name == "table" else array for name, array in found.items()}


class OneForAll(NumpySession):
    """Its feeds lie in the session while it runs."""

    def compute(self, feeds):
        self.feeds = dict(feeds)
        time.sleep(0.001)
        return self.graph.reference(self.feeds)


class ClosesOnce(NumpySession):
    def close(self):
        if self.closed:
            raise RuntimeError("closed twice")
        self.closed = True


class RunsOn(NumpySession):
    def close(self):
        return


class Shared(NumpySession):
    """Sessions that share what they are closed by."""

    everyone = threading.Event()

    def run(self, feeds):
        self.closed = self.everyone.is_set()
        return NumpySession.run(self, feeds)

    def close(self):
        self.everyone.set()


def wrong_words(self, request):
    self.precision = "float"


CASES = [
    Case("test_probe_answers", "not BackendStatus", body(probe=lambda environment: True)),
    Case("test_probe_answers", "not why", body(probe=status(usable=False)), "reason"),
    Case("test_probe_answers", "knows no device", body(probe=status(devices=("cuda:0",))), "device"),
    Case("test_probe_answers", "the version", body(probe=status(version=None)), "version"),
    Case("test_probe_answers", "no precisions", body(probe=status(precisions=())), "precisions"),
    Case("test_probe_answers_anywhere", "KeyError", body(probe=lambda e: e.packages["numpy"])),
    Case("test_probe_is_light", "imports numpy", body(name="heavy_probe")),
    Case("test_probe_is_light", "more than read", body(name="asking_probe"), "process"),
    Case("test_is_a_session", "lacks something", body(derived(provider=property(lambda self: self.no)))),
    Case("test_is_a_session", "of backend 'onnx'", body(derived(backend="onnx")), "name"),
    Case("test_names_and_types", "other names", body(with_init(renamed))),
    Case("test_names_and_types", "the graph's uint8", body(with_init(widened)), "dtype"),
    Case("test_names_and_types", "the graph's is", body(with_init(frozen_batch)), "shape"),
    Case("test_reads_back_what_is_effective", "the session says 'cuda:0'",
         body(with_init(lambda self, request: setattr(self, "device", "cuda:0")))),
    Case("test_reads_back_what_is_effective", "says 'float'", body(with_init(wrong_words)), "precision"),
    Case("test_reads_back_what_is_effective", "what executes it", body(derived(provider="")), "provider"),
    Case("test_metadata", "metadata are lost", body(with_init(lambda self, request: self.metadata.clear()))),
    Case("test_refuses_damaged_files", "DID NOT RAISE", body(opener=lazily)),
    Case("test_refuses_damaged_files", "FileNotFoundError", body(opener=raw_opener), "raw"),
    Case("test_needs_something_to_open", "AttributeError", body(opener=raw_opener)),
    Case("test_refuses_unknown_devices", "DID NOT RAISE", body(opener=any_device)),
    Case("test_takes_threads", "DID NOT RAISE", body(opener=any_threads)),
    Case("test_computes_what_numpy_does", "Not equal to tolerance", body(derived(compute=nudged))),
    Case("test_computes_what_numpy_does", "is float64, declared float32", body(derived(compute=doubled)), "dtype"),
    Case("test_computes_what_numpy_does", "no numpy array", body(derived(compute=listed)), "list"),
    Case("test_dynamic_batch", "planned for 3", body(FirstBatch)),
    Case("test_static_batch", "DID NOT RAISE", body(Pads)),
    Case("test_refuses_wrong_feeds", "DID NOT RAISE", body(Casts)),
    Case("test_refuses_wrong_feeds", "KeyError", body(RaisesKeys), "raw"),
    Case("test_failing_runs_are_typed", "ValueError", body(RaisesRaw)),
    Case("test_failing_runs_are_typed", "was closed", body(DiesOnce), "dies"),
    Case("test_takes_any_memory_layout", "cannot set WRITEABLE", body(Writable)),
    Case("test_takes_any_memory_layout", "must be contiguous", body(Contiguous), "contiguous"),
    Case("test_leaves_inputs_alone", "was written to", body(Normalises)),
    Case("test_outputs_belong_to_the_caller", "input's own memory", body(PassesOn)),
    Case("test_outputs_belong_to_the_caller", "overwrote an earlier output", body(OneBuffer), "buffer"),
    Case("test_outputs_belong_to_the_caller", "Not equal to tolerance", body(LendsWeights), "weights"),
    Case("test_threads", "Error", body(OneForAll)),
    Case("test_closes", "closed twice", body(ClosesOnce)),
    Case("test_closes", "DID NOT RAISE", body(RunsOn), "runs on"),
    Case("test_closes", "was closed", body(Shared), "shared"),
]  # fmt: skip


class TestKeepsNumpy(BackendContract):
    locals().update(body())


class TestKeepsOpener(BackendContract):
    """The same through an opener that is given."""

    locals().update(body(opener=open_session, probe=numpy_backend.probe))


globals().update(classes(BackendContract, CASES))
