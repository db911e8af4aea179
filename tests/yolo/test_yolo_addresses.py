"""A model file by its address: from the hub, the web, a file URI, end to end against a local server."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import IntegrityError, LensmountError, ModelNotFoundError, OfflineError, SourceError

pytest.importorskip("onnxruntime")

PICTURE = np.zeros((64, 64, 3), np.uint8)
COMMIT = "a" * 40


@pytest.fixture
def content(graph, raw):
    """A detector that sees one cat."""
    return graph({"output0": raw([(32, 32, 8, 16, 0, 0.9)])}).read_bytes()


def sees_the_cat(model):
    with model:
        (result,) = model(PICTURE)
    return [str(name) for name in result.class_name] == ["cat"]


def test_a_file_on_the_hub(hub, content, no_sockets_after):
    hub.put_repo("owner/repo", {"sub/my-model.onnx": content})
    model = registry.load("hf://owner/repo/sub/my-model.onnx")
    assert model.card.id == "my-model"
    assert sees_the_cat(model)
    assert sees_the_cat(registry.load(f"hf://owner/repo@{COMMIT}/sub/my-model.onnx"))
    with no_sockets_after():
        assert sees_the_cat(registry.load("hf://owner/repo/sub/my-model.onnx", offline=True))


def test_a_branch_that_moves_does_not_change_the_model(hub, content, graph, raw):
    hub.put_repo("owner/repo", {"m.onnx": content})
    assert sees_the_cat(registry.load("hf://owner/repo/m.onnx"))
    hub.put_repo("owner/repo", {"m.onnx": graph({"output0": raw([])}, "other.onnx").read_bytes()}, commit="b" * 40)
    assert sees_the_cat(registry.load("hf://owner/repo/m.onnx"))


def test_what_is_not_there(hub, content):
    hub.put_repo("owner/repo", {"m.onnx": content})
    with pytest.raises(SourceError, match=r"x\.onnx"):
        registry.load("hf://owner/repo/x.onnx")
    with pytest.raises(SourceError):
        registry.load("hf://owner/nothing/m.onnx")
    with pytest.raises(ModelNotFoundError, match=r"lensmount\.json"):
        registry.load("hf://owner/repo/readme.md")
    with pytest.raises(OfflineError, match=r"new\.onnx"):
        registry.load("hf://owner/repo/new.onnx", offline=True)
    for address in ("ftp://host/m.onnx", "http://[/m.onnx", "https:///m.onnx", "hf://x", "~nobody-at-all/m.onnx"):
        with pytest.raises(LensmountError):
            registry.load(address)


def test_plain_http_and_addresses_without_a_hash(web, home, content, no_sockets_after):
    url = web.put("/models/my.onnx", content)
    pinned = f"{url}#sha256={hashlib.sha256(content).hexdigest()}"
    for address in (url, pinned):
        with pytest.raises(SourceError, match="allow_insecure=True"):
            registry.load(address)
        assert web.count() == 0  # refused before anything was asked for
    with pytest.raises(SourceError, match="#sha256="):
        registry.load("https://host.example/my.onnx")
    model = registry.load(pinned, allow_insecure=True)
    assert model.card.id == "my"
    assert sees_the_cat(model)
    with no_sockets_after():
        assert sees_the_cat(registry.load(pinned, allow_insecure=True, offline=True))


def test_a_wrong_hash(web, home, content):
    url = web.put("/m.onnx", content)
    with pytest.raises(IntegrityError, match="0" * 64):
        registry.load(f"{url}#sha256={'0' * 64}", allow_insecure=True)
    with pytest.raises(SourceError, match="not a hash"):
        registry.load(f"{url}#md5=1", allow_insecure=True)
    assert not [path for path in (home / "blobs").rglob("*") if path.is_file()]


def test_content_that_changes_under_an_unpinned_address(web, home, content, graph, raw):
    url = web.put("/m.onnx", content)
    assert sees_the_cat(registry.load(url, allow_insecure=True))
    web.put("/m.onnx", graph({"output0": raw([])}, "other.onnx").read_bytes())
    assert sees_the_cat(registry.load(url, allow_insecure=True))  # what the first download gave
    for blob in (home / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    with pytest.raises(IntegrityError):
        registry.load(url, allow_insecure=True)


def test_a_file_uri(home, tmp_path, content):
    path = tmp_path / "with space & ümlaut %41.onnx"
    path.write_bytes(content)
    assert sees_the_cat(registry.load(path.as_uri()))
    assert sees_the_cat(registry.load(path))
    with pytest.raises(LensmountError, match="no such file"):
        registry.load((tmp_path / "missing.onnx").as_uri())
    with pytest.raises(LensmountError, match="local file"):
        registry.load("file://server/share/m.onnx")


@pytest.fixture
def secure(web, home, tmp_path, monkeypatch):
    """The server behind TLS, with a certificate that this test alone trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    web.url = f"https://localhost:{web.server.server_port}"
    web.certificate = certificate
    return web


def test_https(secure, content, monkeypatch, no_sockets_after):
    url = secure.put("/m.onnx", content)
    address = f"{url}#sha256={hashlib.sha256(content).hexdigest()}"
    with pytest.raises(SourceError, match="certificate"):
        registry.load(address)
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.certificate))
    assert sees_the_cat(registry.load(address))
    with no_sockets_after():
        assert sees_the_cat(registry.load(address, offline=True))
    with pytest.raises(SourceError, match="does not say which content"):
        registry.load(url)
