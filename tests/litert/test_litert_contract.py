"""What lensmount asks of every plugin and backend, tested by its conformance kit on TFLite forms of its graphs."""

from __future__ import annotations

import dataclasses

import pytest

from lensmount.contracts import OpenRequest
from lensmount.specs import Artifact, ModelPackage
from lensmount_testing import GRAPHS, BackendContract, PluginContract
from tflite_forms import tflite_form

pytest.importorskip("ai_edge_litert")


class TestPlugin(PluginContract):
    distribution = "lensmount-litert"


class TestBackend(BackendContract):
    backend = "litert"
    dtypes = ("float32", "uint8", "int64")

    def request(self, descriptor, graph, folder, **changes):
        path = folder / f"{graph.name}.tflite"
        if graph.name != "float16":  # TFLite computes in no halves
            path.write_bytes(tflite_form(graph))
        artifact = Artifact(name=path.name, uri=path.as_uri(), role="graph")
        package = ModelPackage(name="tflite", format="tflite", precision=self.precision, artifacts=(artifact,))
        request = OpenRequest(package=package, path=path, device=self.device, precision=self.precision)
        return dataclasses.replace(request, **changes)


def test_every_graph_that_can_be_is_tried():
    taken = {n for n, g in GRAPHS.items() if {spec.dtype for spec in g.inputs} <= set(TestBackend.dtypes)}
    assert taken == set(GRAPHS) - {"float16"}
