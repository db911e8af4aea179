"""Graphs on a server: the same results as here, and a typed error for all that a server can do wrong."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from lensmount.contracts import BackendOptions, OpenRequest, TensorSpec
from lensmount.errors import (
    BackendError,
    LensmountError,
    OfflineError,
    OptionError,
    UnsupportedModelError,
)
from lensmount.specs import Artifact, ModelPackage
from lensmount_testing.graphs import GRAPHS
from lensmount_triton.backend import described, open_session
from lensmount_triton.config import config_text, plan_text, quoted, server
from lensmount_triton.digest import digest
from triton_server import model_config


def request(file, **changes):
    package = ModelPackage(name="kit", format="onnx", artifacts=(Artifact(name=file.name, uri=file.as_uri()),))
    fields = {"package": package, "path": file, "device": "remote", "precision": "fp32"}
    return OpenRequest(**{**fields, **changes})


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "scale.onnx"
    path.write_bytes(GRAPHS["scale"].onnx)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://a:b",
        "http://me:secret@host:1",
        "http://h:99999999",
        "http://h?x",
    ],
)
def test_addresses_that_are_none(text, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_TRITON_URL", text)
    with pytest.raises(OptionError, match="LENSMOUNT_TRITON_URL") as caught:
        server()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address", "secure", "local"),
    [
        ("http://localhost", "localhost:8000", False, True),
        ("https://models.example.com/triton/", "models.example.com:443/triton", True, False),
        ("http://[::1]:9000", "[::1]:9000", False, True),
        ("http://127.0.0.2:1", "127.0.0.2:1", False, True),
        ("http://localhost.example.com:1", "localhost.example.com:1", False, False),
    ],
)
def test_addresses(text, address, secure, local, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_TRITON_URL", text)
    found = server()
    assert (found.address, found.secure, found.local) == (address, secure, local)


@pytest.mark.parametrize(
    ("variable", "text"), [("TIMEOUT", "soon"), ("TIMEOUT", "0"), ("TIMEOUT", "nan"), ("UPLOAD", "yes")]
)
def test_settings_that_are_not_valid(variable, text, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_TRITON_URL", "http://localhost")
    monkeypatch.setenv(f"LENSMOUNT_TRITON_{variable}", text)
    with pytest.raises(OptionError, match=variable):
        server()


def test_offline_asks_no_other_machine(graph, monkeypatch):
    pytest.importorskip("tritonclient.http")
    monkeypatch.setenv("LENSMOUNT_TRITON_URL", "http://models.example.com")
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"models\.example\.com"):
        open_session(request(graph))


def test_a_server_that_is_gone(graph, triton):
    session = open_session(request(graph))
    triton.stop()
    for call in (lambda: open_session(request(graph)), lambda: session.run(GRAPHS["scale"].feeds())):
        with pytest.raises(BackendError, match="does not answer"):
            call()


def test_a_server_that_is_slow(graph, triton, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_TRITON_TIMEOUT", "0.5")
    session = open_session(request(graph))
    triton.delay = 5
    with pytest.raises(BackendError, match="does not answer"):
        session.run(GRAPHS["scale"].feeds())


def test_a_server_that_is_not_ready(graph, triton):
    triton.ready = False
    with pytest.raises(BackendError, match="is not ready"):
        open_session(request(graph))


def test_without_the_model_the_export_is_named(graph, triton, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_TRITON_UPLOAD", "0")
    with pytest.raises(BackendError, match="lensmount export MODEL --to triton DIR"):
        open_session(request(graph))
    assert triton.models == {}


def test_a_server_that_takes_no_models(graph, triton):
    triton.explicit = False
    with pytest.raises(BackendError, match="model-control-mode=explicit"):
        open_session(request(graph))


def test_another_version_is_not_taken_for_it(graph, triton, monkeypatch):
    """The name says nothing: a model of other weights has another sha256."""
    monkeypatch.setenv("LENSMOUNT_TRITON_UPLOAD", "0")
    inputs, outputs = GRAPHS["scale"].inputs, GRAPHS["scale"].outputs
    triton.add(described("scale", inputs, outputs, "0" * 64), graph)
    with pytest.raises(BackendError, match="does not have graph"):
        open_session(request(graph))
    triton.add(described("other-name", inputs, outputs, digest(graph)), graph)
    assert open_session(request(graph)).provider == "triton 2.99.0"


@pytest.mark.parametrize("what", ["type", "size", "name", "rank"])
def test_a_configuration_that_says_otherwise(what, graph, triton):
    inputs, outputs = GRAPHS["scale"].inputs, GRAPHS["scale"].outputs
    config = described("scale", inputs, outputs, digest(graph))
    value = config["input"][0]
    change = {
        "type": {"data_type": "TYPE_FP16"},
        "size": {"dims": [3, 8, 9]},
        "name": {"name": "x"},
        "rank": {"dims": [3, 8]},
    }
    value.update(change[what])
    triton.add(config, graph)
    with pytest.raises(BackendError, match="another graph"):
        open_session(request(graph))


def test_large_batches_are_sent_in_parts(graph, triton):
    session = open_session(request(graph))
    feeds = GRAPHS["scale"].feeds(batch=19)
    found = session.run(feeds)
    wanted = GRAPHS["scale"].reference(feeds)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)
    assert triton.batches == [8, 8, 3]


def test_threads_have_connections_of_their_own(graph, triton):
    session = open_session(request(graph))
    wrong = []

    def work(seed):
        feeds = GRAPHS["scale"].feeds(seed=seed)
        for _ in range(10):
            if not np.allclose(session.run(feeds)["scaled"], GRAPHS["scale"].reference(feeds)["scaled"]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_failed_run_says_what_the_server_said(tmp_path, triton):
    path = tmp_path / "mismatch.onnx"
    path.write_bytes(GRAPHS["mismatch"].onnx)
    session = open_session(request(path))
    with pytest.raises(BackendError, match="onnx runtime error"):
        session.run({"left": np.zeros(2, np.float32), "right": np.zeros(3, np.float32)})


def test_what_the_backend_does_not_have_is_refused(graph, triton):
    with pytest.raises(OptionError, match="providers"):
        open_session(request(graph, options=BackendOptions(providers=("CPUExecutionProvider",))))


def test_a_graph_that_the_server_cannot_load(tmp_path, triton):
    from lensmount_testing.graphs import unknown_operator

    path = tmp_path / "odd.onnx"
    path.write_bytes(unknown_operator())
    with pytest.raises(UnsupportedModelError, match="cannot load"):
        open_session(request(path))


@pytest.mark.parametrize("name", list(GRAPHS))
@pytest.mark.parametrize("most", [0, 4])
def test_configurations_are_what_triton_reads(name, most):
    """Parsed by the published protobuf; names with quotes and other scripts as well."""
    pb2 = model_config()
    from google.protobuf import text_format

    graph = GRAPHS[name]
    odd = tuple(TensorSpec(f'{spec.name}"\\ \n名é', spec.shape, spec.dtype) for spec in graph.inputs)
    if most and any(not spec.shape for spec in (*odd, *graph.outputs)):
        pytest.skip("a scalar has no batch")
    text = config_text("m", odd, graph.outputs, sha256="ab", max_batch_size=most, max_queue_delay_us=100)
    config = text_format.Parse(text, pb2.ModelConfig())
    assert [value.name for value in config.input] == [spec.name for spec in odd]
    assert config.max_batch_size == most
    assert config.HasField("dynamic_batching") is bool(most)
    assert config.parameters["lensmount_sha256"].string_value == "ab"
    for value, spec in zip((*config.input, *config.output), (*odd, *graph.outputs), strict=True):
        sizes = [size if isinstance(size, int) else -1 for size in spec.shape[1 if most else 0 :]]
        assert list(value.dims) == sizes or (not sizes and list(value.reshape.shape) == [])
    assert text_format.Parse(plan_text("m", "ab"), pb2.ModelConfig()).platform == "tensorrt_plan"
    assert quoted("a") == '"a"'


def test_every_error_is_ours(graph, triton):
    for change in ({"device": "cpu"}, {"path": None}, {"path": graph.parent}):
        with pytest.raises(LensmountError):
            open_session(request(graph, **change))
