"""Signed addresses load, and their signature is in no message, log, record or file of the store."""

from __future__ import annotations

import hashlib
import logging
import secrets
import traceback

import pytest

from lensmount import registry
from lensmount.contracts.finder import FetchOptions
from lensmount.errors import LensmountError
from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount.store.addresses import known_as, parse_web, public, unsigned
from lensmount.store.fetch import fetch_artifact, fetch_package, fetch_uri
from lensmount.store.https import HttpsFinder
from lensmount.store.lock import make_lock, write_lock
from lensmount.store.store import Store
from lensmount.store.transport import Policy

CONTENT = b"weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
INSECURE = FetchOptions(allow_insecure=True, progress=False)


@pytest.fixture(
    params=[str, "a b{}".format, "%2F{}/x.onnx".format, "é{}".format], ids=["hex", "space", "path", "accent"]
)
def secret(request):
    """What may not be seen, and the query that it stands in."""
    token = secrets.token_hex(12)
    return token, f"X-Amz-Algorithm=AWS4&X-Amz-Signature={request.param(token)}&n=/a.pt"


@pytest.fixture
def seen(caplog, capfd, home):
    """All that was said and written so far."""
    caplog.set_level(logging.DEBUG)

    def everything(*more):
        out = capfd.readouterr()
        files = [path for path in home.rglob("*") if path.is_file()]
        written = [str(path) + path.read_bytes().decode("latin-1") for path in files]
        return "\n".join([*map(str, more), caplog.text, out.out, out.err, *written])

    return everything


def finders(home):
    finder = HttpsFinder(Store(home, policy=Policy(attempts=2, base=0.001, cap=0.002)))
    return {"http": finder, "https": finder}


def failure(call):
    with pytest.raises(LensmountError) as caught:
        call()
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.fix)


def test_a_signed_address_loads_by_its_path(web, home, seen, secret):
    token, query = secret
    web.put("/best.onnx", CONTENT)
    url = f"{web.url}/best.onnx?{query}"
    for address in (url, f"{url}#sha256={SHA}"):
        said = failure(lambda address=address: registry.load(address, allow_insecure=True))
        assert "no kind of model file known here" in said or "not" in said  # it was brought, and is no model
        assert token not in seen(said)
    assert web.count(containing="best.onnx?X-Amz") >= 1


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 410, 416, 418, 429, 500, 503])
def test_no_refusal_shows_it(web, home, seen, secret, status):
    token, query = secret
    web.put("/best.onnx", CONTENT, statuses=[(status, {})] * 3)
    said = failure(lambda: fetch_uri(f"{web.url}/best.onnx?{query}", finders(home), INSECURE))
    assert token not in seen(said)


@pytest.mark.parametrize(
    "target", ["ftp://h/x?{}", "http://127.0.0.1:1/x?{}", "x?{}\x01", "http://[::1/x?{}", "//?{}", "?{}"]
)
def test_no_redirect_shows_it(web, home, seen, secret, target):
    token, query = secret
    web.redirects["/best.onnx"] = target.format(f"sig={token}")
    said = failure(lambda: fetch_uri(f"{web.url}/best.onnx?{query}", finders(home), INSECURE))
    assert token not in seen(said)


def test_no_mistake_in_an_address_shows_it(home, seen, secret):
    token, query = secret
    bad = (
        "https:/h/best.onnx?{}", "https://h/best?{}", "https://h:port/best.onnx?{}", "https://u:{}@h/best.onnx",
        "https:///best.onnx?{}", "HTTPS://h/best.onnx?{}", "http://h/best.onnx?{}", "https://h/best.onnx?{}#x",
        "https://h/best.onnx#{}", "s3://bucket/best.onnx?{}", "https://[h/best.onnx?{}",
    )  # fmt: skip
    for form in bad:
        address = form.format(query)
        assert token not in seen(failure(lambda address=address: registry.load(address))), form
        assert token not in public(address), form
    assert token not in repr(parse_web(f"https://h/b.onnx?{query}"))
    offline = FetchOptions(allow_insecure=True, offline=True)
    assert token not in seen(failure(lambda: fetch_uri(f"https://h/best.onnx?{query}", finders(home), offline)))
    artifact = Artifact(name="w", uri=f"s3://bucket/w?{query}")
    assert token not in seen(failure(lambda: fetch_artifact(artifact, finders(home), offline)))


def test_no_record_holds_it(web, home, tmp_path, seen, secret):
    token, query = secret
    web.put("/a.onnx", CONTENT)
    web.put("/b.onnx", CONTENT * 2)
    artifacts = tuple(Artifact(name=n, uri=f"{web.url}/{n}?{query}") for n in ("a.onnx", "b.onnx"))
    package = ModelPackage(name="p", format="onnx", artifacts=artifacts)
    card = ModelCard(id="m", architecture="yolo", task="object-detection", packages=(package,))
    fetched = fetch_package(card, package, finders(home), INSECURE, store=Store(home))
    written = write_lock(make_lock([(card, package, fetched)]), tmp_path / "lensmount.lock").read_text()
    web.put("/a.onnx", b"changed")
    assert token not in seen(written, fetched)


def test_what_the_store_knows_an_address_as():
    secret = "https://Host/b.onnx?sig=abc"
    known = known_as(secret)
    assert known.startswith("https://host/b.onnx?~") and "abc" not in known
    assert known_as(known) == known == known_as(f"{secret}#sha256={SHA}")
    assert known_as("https://host/b.onnx?sig=abd") != known
    for plain in ("hf://o/R/b.onnx", "roboflow://W/p?md5=1", "https://host/b.onnx"):
        assert known_as(plain) == plain


def test_messages_of_other_libraries():
    text = "403 for url: https://cdn/x?X-Amz-Signature=abc&y=1 (is it right?) and 'http://h/?k=abc'"
    assert unsigned(text) == "403 for url: https://cdn/x?… (is it right?) and 'http://h/?…'"
