"""Hostile and broken clients: what they may claim, how slowly they may talk, who they may pretend to be."""

from __future__ import annotations

import base64
import json
import socket
import struct
import time
import zlib

import pytest

from lensmount.errors import OptionError
from lensmount_serve import Settings
from lensmount_serve.failures import AnswerError, failure_of, without_paths
from lensmount_serve.fetching import checked, fetch, is_public, parts_of
from serving import serving

KEY = "a-key-of-the-test"


def talk(port, data, seconds=5.0, pause=0.0, shut=False):
    """Sends raw bytes; what came back until the server closed or `seconds` passed, and how long that took."""
    start = time.monotonic()
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as made:
        try:
            if pause:
                for byte in data:
                    made.sendall(bytes([byte]))
                    time.sleep(pause)
            else:
                made.sendall(data)
            if shut:
                made.shutdown(socket.SHUT_WR)
            while part := made.recv(65536):
                found += part
        except (TimeoutError, ConnectionError):
            pass
    return found, time.monotonic() - start


def head(path="/infer/object_detection", host="localhost", **more):
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *(f"{k.replace('_', '-')}: {v}" for k, v in more.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.fixture(scope="module")
def strict():
    """A server with short times and small limits."""
    with serving(read_seconds=0.6, max_body=400_000, max_pixels=1_000_000, max_images=2) as client:
        yield client
        assert client.get("/healthz") == (200, {"status": "healthy"})


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_a_claim_of_ten_gigabytes(strict):
    found, took = talk(strict.port, head(Content_Length=10 * 2**30))
    assert b" 413 " in found.splitlines()[0] and took < 2
    assert b"connection: close" in found.lower()
    found, _ = talk(strict.port, head(Content_Length="9" * 400))
    assert b" 4" in found.splitlines()[0][:13]


def test_a_body_without_end(strict):
    chunk = b"%x\r\n%s\r\n" % (8192, b" " * 8192)
    found, took = talk(strict.port, head(Transfer_Encoding="chunked") + chunk * 60)
    assert b" 413 " in found.splitlines()[0] and took < 3


def test_compressed_bodies(strict):
    bomb = zlib.compress(b" " * 10_000_000)
    found, _ = talk(strict.port, head(Content_Encoding="deflate", Content_Length=len(bomb)) + bomb, seconds=1)
    assert b" 415 " in found.splitlines()[0]


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(65_000, 65_000), (1001, 1000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_declares_too_much(strict, size):
    image = {"type": "base64", "value": base64.b64encode(png(*size)).decode()}
    status, answer = strict.post("/infer/object_detection", {"model_id": "shapes-nano", "image": image})
    assert status == 400 and "larger than the limit" in answer["message"]


def test_too_many_pictures(strict):
    image = {"type": "base64", "value": base64.b64encode(png(9, 9)).decode()}
    status, answer = strict.post("/infer/object_detection", {"model_id": "shapes-nano", "image": [image] * 3})
    assert status == 400 and "at most 2 pictures" in answer["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"model_id": NaN}', b"[" * 50_000, b'{"a":' * 10_000,
        b'{"model_id": 1e999}', b'{"model_id": "\\ud800", "image": {"type": "base64", "value": "\\ud800"}}',
        b'{"model_id": "shapes-nano", "image": {"type": "base64", "value": ' + b"9" * 5000 + b"}}",
        b'{"model_id": "shapes-nano", "image": {"type": "base64", "value": "AA"}, "confidence": ' + b"9" * 400 + b"}",
    ],
)  # fmt: skip
def test_bodies_that_are_none(strict, body):
    status, _, answer = strict.raw("POST", "/infer/object_detection", body, {"Content-Type": "application/json"})
    assert 400 <= status < 500, answer
    assert json.loads(answer)["message"]


# --- times ------------------------------------------------------------------------------------------------------------


def test_a_head_that_never_ends(strict):
    found, took = talk(strict.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 2000, pause=0.01)
    assert b"200" not in found and took < 3


def test_a_body_that_drips(strict):
    found, took = talk(strict.port, head(Content_Length=1000) + b"{", seconds=4)
    assert b" 408 " in found.splitlines()[0] and took < 3


def test_silent_connections_are_closed(strict):
    found, took = talk(strict.port, b"", seconds=4)
    assert found == b"" and took < 3


def test_clients_that_go_away(strict, picture):
    """Their work is dropped and the server goes on."""
    body = json.dumps({"model_id": "shapes-nano", "image": picture}).encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", strict.port)) as made:
            made.sendall(head(Content_Type="application/json", Content_Length=len(body)) + body)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell
    assert strict.post("/infer/object_detection", {"model_id": "shapes-nano", "image": picture})[0] == 200


def test_a_deadline(picture):
    with serving(timeout=0.001) as client:
        status, answer = client.post("/infer/object_detection", {"model_id": "shapes-nano", "image": picture})
        assert status == 504 and "0.001" in answer["message"]


def test_a_stop_lets_requests_end(picture):
    with serving() as client:
        body = json.dumps({"model_id": "shapes-nano", "image": [picture] * 8}).encode()
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as made:
            made.sendall(head(Content_Type="application/json", Content_Length=len(body)) + body)
            time.sleep(0.05)
            client.server.should_exit = True
            found = b""
            while part := made.recv(65536):
                found += part
        assert b" 200 " in found.splitlines()[0] and found.count(b'"predictions"') == 8
        client.thread.join(10)
        assert not client.thread.is_alive()


# --- who asks ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyed():
    with serving(api_key=KEY) as client:
        yield client


def test_keys(keyed, picture):
    body = {"model_id": "shapes-nano", "image": picture}
    route = "/infer/object_detection"
    for wrong in ({}, {"api_key": "other"}, {"api_key": KEY + "x"}, {"api_key": [KEY]}, {"api_key": None}):
        assert keyed.post(route, body | wrong)[0] == 401
    assert keyed.post(route, body, {"Authorization": "Basic " + KEY})[0] == 401
    assert keyed.post(route, body | {"api_key": KEY})[0] == 200
    assert keyed.post(route, body, {"Authorization": f"Bearer {KEY}"})[0] == 200
    assert keyed.post(f"{route}?api_key={KEY}", body)[0] == 200
    for path in ("/model/registry", "/metrics", "/openapi.json", "/info"):
        status, headers, _ = keyed.raw("GET", path)
        assert status == 401 and headers["www-authenticate"] == "Bearer"
        assert keyed.raw("GET", f"{path}?api_key={KEY}")[0] == 200
    for path in ("/healthz", "/readiness"):
        assert keyed.get(path)[0] == 200


def test_a_key_is_in_no_log_and_no_repr(keyed, picture, caplog):
    caplog.set_level("DEBUG")
    keyed.post(f"/infer/object_detection?api_key={KEY}", {"model_id": "shapes-nano", "image": picture})
    keyed.raw("GET", f"/nowhere?api_key={KEY}")
    assert "/infer/object_detection" in caplog.text
    assert KEY not in caplog.text
    assert KEY not in repr(Settings(api_key=KEY))


def test_other_sites_in_the_user_s_browser(server, picture):
    body = {"model_id": "shapes-nano", "image": picture}
    route = "/infer/object_detection"
    port = server.port
    assert server.post(route, body, {"Origin": "https://evil.example"})[0] == 403
    assert server.post(route, body, {"Origin": "null"})[0] == 403
    assert server.post(route, body, {"Host": "evil.example"})[0] == 403  # DNS rebinding
    assert server.post(route, body, {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}"})[0] == 200
    assert server.post(route, body, {"Host": f"[::1]:{port}"})[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_an_open_address_asks_for_a_key_or_a_word(host):
    with pytest.raises(OptionError, match="no key is asked for") as caught:
        Settings(host=host)
    assert "--no-key" in str(caught.value)
    Settings(host=host, no_key=True)
    Settings(host=host, api_key=KEY)
    for mine in ("127.0.0.1", "::1", "localhost", "127.0.0.9"):
        Settings(host=mine)


# --- addresses of pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::",
        "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/x.png", "http://localhost/x.png", "http://[::1]/x.png", "http://2130706433/x.png",
        "http://0x7f000001/x.png", "http://017700000001/", "http://127.1/", "http://0/", "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data", "ftp://example.com/x.png", "file:///etc/passwd", "gopher://x/",
        "http://user:pass@example.com/", "http://example.com:22/", "http://example.com:99999/", "http:///x", "http://",
        "//example.com/x", "http://example.com/a b", "http://example.com/\r\nX: y", "http://[::1", "data:text/plain,x",
    ],
)  # fmt: skip
def test_tricks_with_addresses(address, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("a connection was made"))
    with pytest.raises(AnswerError) as caught:
        fetch(address, limit=1000, seconds=5)
    assert caught.value.status == 400


def answers(monkeypatch, by_host, served):
    """A name server, and an internet of one local server that all public addresses lead to."""
    looked, asked = [], []

    def look(host, port, *more):
        looked.append(host)
        found = by_host[host]
        value = found.pop(0) if isinstance(found, list) and len(found) > 1 else found
        return [(0, 0, 0, "", (address, port)) for address in (value if isinstance(value, tuple) else (value[0],))]

    def connect(address, timeout=None):
        asked.append(address[0])
        made = socket.socket()
        made.settimeout(timeout)
        made.connect(("127.0.0.1", served))
        return made

    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr("lensmount_serve.fetching.socket.create_connection", connect)
    return looked, asked


@pytest.fixture
def web():
    """A web server with a picture, redirects, a body without end and a silent page."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
            elif self.path == "/long":
                self.send_response(200)
                self.end_headers()
                try:
                    for _ in range(10_000):
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    pass
            elif self.path == "/silent":
                time.sleep(1.5)
            else:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"host " + self.headers["Host"].encode())

        def log_message(self, *arguments):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made.server_port
    made.shutdown()
    made.server_close()


def test_a_public_picture_and_its_redirects(monkeypatch, web):
    names = {
        "pictures.example": ("93.184.216.34",), "inner.example": ("10.0.0.7",),
        "mixed.example": ("8.8.8.8", "10.0.0.1"),
        "127.0.0.1": ("127.0.0.1",),
    }  # fmt: skip
    looked, asked = answers(monkeypatch, names, web)
    assert fetch("http://pictures.example/a", limit=1000, seconds=5) == b"host pictures.example"
    assert looked == ["pictures.example"] and asked == ["93.184.216.34"]  # resolved once, and gone to what was checked
    assert fetch("http://pictures.example/to/http://pictures.example/b", limit=1000, seconds=5)
    for trick in ("http://inner.example/", "http://127.0.0.1/", "http://mixed.example/", "file:///etc/passwd"):
        asked.clear()
        with pytest.raises(AnswerError):
            fetch(f"http://pictures.example/to/{trick}", limit=1000, seconds=5)
        assert asked == ["93.184.216.34"]
    with pytest.raises(AnswerError, match="redirects"):
        fetch("http://pictures.example/to//to//to//to//to//a", limit=1000, seconds=5)


def test_a_long_and_a_silent_answer(monkeypatch, web):
    answers(monkeypatch, {"pictures.example": ("93.184.216.34",)}, web)
    with pytest.raises(AnswerError, match="larger than 100000 bytes"):
        fetch("http://pictures.example/long", limit=100_000, seconds=5)
    start = time.monotonic()
    with pytest.raises(AnswerError):
        fetch("http://pictures.example/silent", limit=1000, seconds=0.5)
    assert time.monotonic() - start < 1.4


def test_a_second_answer_of_the_name_server_is_not_asked_for(monkeypatch, web):
    looked, asked = answers(monkeypatch, {"rebind.example": [("93.184.216.34",), ("127.0.0.1",)]}, web)
    fetch("http://rebind.example/a", limit=1000, seconds=5)
    assert asked == ["93.184.216.34"] and len(looked) == 1


def test_offline(monkeypatch):
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    with pytest.raises(AnswerError, match="offline"):
        fetch("http://pictures.example/", limit=1, seconds=1)


def test_names_of_hosts():
    assert parts_of("https://bücher.example/ä".replace("ä", "a"))[1] == "xn--bcher-kva.example"
    with pytest.raises(AnswerError):
        checked("no-such-host.invalid", 80)


# --- what answers tell ------------------------------------------------------------------------------------------------


def test_errors_tell_no_paths():
    from lensmount.errors import BackendError, ImageError, ModelFileError

    told = failure_of(ImageError("/home/me/x.png cannot be read", found="[Errno 2] '/var/lib/store/blob'"))
    assert told.status == 400 and "/home" not in told.message and "/var" not in told.message
    for error in (ModelFileError("/srv/models/best.pt is broken"), BackendError("x"), RuntimeError("/etc/secret")):
        told = failure_of(error)
        assert told.status == 500 and "/" not in told.message
    assert without_paths("a C:\\Users\\me\\x.pt b image/png 1/2") == "a … b image/png 1/2"


def test_a_request_id_is_echoed_or_made(server):
    assert server.raw("GET", "/healthz", headers={"X-Request-Id": "mine-7"})[1]["x-request-id"] == "mine-7"
    made = server.raw("GET", "/healthz", headers={"X-Request-Id": "a b\tc" * 50})[1]["x-request-id"]
    assert len(made) == 32


def test_nowhere_and_wrong_methods(server):
    assert server.raw("GET", "/nowhere/at/all/x")[0] == 404
    assert server.raw("GET", "/model/add")[0] == 405
    assert server.raw("DELETE", "/healthz")[0] == 405
