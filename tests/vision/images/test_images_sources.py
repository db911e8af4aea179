"""Folders, globs, URLs and videos. The servers are local; the videos are written here."""

from __future__ import annotations

import http.server
import threading

import cv2
import numpy as np
import pytest

from lensmount.errors import ImageError, OfflineError
from lensmount_vision.images.loading import load
from lensmount_vision.images.sources import expand_sources, is_video, video_frames

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
PNG = cv2.imencode(".png", PIXELS)[1].tobytes()


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "clip.mp4", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.png").write_bytes(PNG)
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(sources) -> list[str]:
    return [str(source).rsplit("/", 1)[-1] for source in expand_sources(sources)]


def test_folder_is_sorted_and_not_recursive(folder):
    assert names(folder) == ["a.JPG", "b.png", "clip.mp4"]
    assert names(str(folder)) == ["a.JPG", "b.png", "clip.mp4"]


def test_globs(folder):
    assert names(f"{folder}/*.png") == ["b.png"]
    assert sorted(names(f"{folder}/**/*.png")) == ["b.png", "c.png"]
    assert names([folder / "b.png", f"{folder}/deeper"]) == ["b.png", "c.png"]


def test_name_with_brackets_is_a_file(folder):
    (folder / "x[1].png").write_bytes(PNG)
    assert names(f"{folder}/x[1].png") == ["x[1].png"]


def test_what_stands_for_itself(folder):
    sources = ["http://host/a.jpg", "rtsp://camera/1", "0", "data:image/png;base64,AAAA", "missing.jpg", "movie.mp4"]
    assert list(expand_sources(sources)) == sources


@pytest.mark.parametrize("pattern", ["empty", "*.tiff", "*.txt"])
def test_nothing_found(folder, pattern: str):
    with pytest.raises(ImageError, match="no images"):
        list(expand_sources(f"{folder}/{pattern}"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [("a.mp4", True), ("a.MOV", True), ("a.jpg", False), ("rtsp://x/1", True), (0, True), ("1", True),
     ("https://host/a.mp4?token=1", True), ("https://host/a.jpg", False)],
)  # fmt: skip
def test_is_video(source, expected: bool):
    assert is_video(source) is expected


# --- URLs -------------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    hits = 0

    def do_GET(self):
        Handler.hits += 1
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/image")
            self.end_headers()
            return
        if self.path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/private" and self.headers.get("Authorization") != "Basic dXNlcjpwYXNzQDE=":
            self.send_error(401)
            return
        body = {
            "/private": PNG,
            "/image": PNG,
            "/text": b"<html>no picture</html>",
            "/short": PNG[:-20],
            "/empty": b"",
        }[self.path]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")  # decoded by content, not by this
        self.send_header("Content-Length", str(len(PNG) if self.path == "/short" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def online(monkeypatch):
    for name in ("LENSMOUNT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("path", ["/image", "/redirect"])
def test_url(server: str, path: str):
    image = load(server + path)
    np.testing.assert_array_equal(image.pixels, PIXELS)
    assert image.path == server + path


@pytest.mark.parametrize(
    ("path", "text"),
    [("/missing", "HTTP 404"), ("/text", "not an image"), ("/short", "broke off|IncompleteRead|cannot be downloaded"),
     ("/empty", "empty"), ("/to-file", "refused|cannot")],
)  # fmt: skip
def test_bad_answers(server: str, path: str, text: str):
    with pytest.raises(ImageError, match=text):
        load(server + path)


def test_too_large_an_answer(server: str, monkeypatch):
    monkeypatch.setattr("lensmount_vision.images.sources._MAX_DOWNLOAD", 100)
    with pytest.raises(ImageError, match="too large"):
        load(server + "/image")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.png", "http://", "http://[bad", "http://host:port/"])
def test_unreachable(url: str):
    with pytest.raises(ImageError):
        load(url)


def test_login_in_the_address(server: str):
    host = server.removeprefix("http://")
    assert load(f"http://user:pass%401@{host}/private").size == (20, 30)
    with pytest.raises(ImageError, match="HTTP 401"):
        load(f"{server}/private")


def test_errors_keep_secrets():
    address = "127.0.0.1:9/a.png?token=hush"
    for call in (
        lambda: load(f"http://user:hush@{address}"),
        lambda: next(video_frames(f"http://user:hush@{address}")),
    ):
        with pytest.raises(ImageError) as caught:
            call()
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["LENSMOUNT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_opens_no_socket(server: str, monkeypatch, name: str):
    monkeypatch.setenv(name, "1")
    before = Handler.hits
    with pytest.raises(OfflineError):
        load(server + "/image")
    with pytest.raises(OfflineError):
        next(video_frames("rtsp://127.0.0.1:9/x"))
    assert Handler.hits == before
    monkeypatch.setenv(name, "0")
    assert load(server + "/image").size == (20, 30)


# --- videos -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    path = tmp_path_factory.mktemp("movie") / "m.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for index in range(7):
        writer.write(np.full((48, 64, 3), index * 30, np.uint8))
    writer.release()
    return path


def test_video_frames(movie):
    frames = list(video_frames(movie))
    assert [frame.number for frame in frames] == list(range(7))
    assert [frame.seconds for frame in frames] == pytest.approx([index / 10 for index in range(7)])
    for number, _, image in frames:
        assert image.size == (48, 64)
        assert image.color == "bgr"
        assert image.path == str(movie)
        assert not image.pixels.flags.writeable
        assert abs(int(image.pixels.mean()) - number * 30) <= 3  # motion JPEG is lossy


def test_video_stride_and_early_end(movie):
    assert [frame.number for frame in video_frames(movie, stride=3)] == [0, 3, 6]
    frames = video_frames(movie)
    next(frames)
    frames.close()
    with pytest.raises(ImageError, match="stride"):
        next(video_frames(movie, stride=0))


def test_videos_that_are_none(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        next(video_frames(tmp_path / "none.mp4"))
    fake = tmp_path / "fake.mp4"
    fake.write_bytes(b"not a video" * 100)
    with pytest.raises(ImageError, match=r"video|frame"):
        next(video_frames(fake))
    with pytest.raises(ImageError, match="camera 97"):
        next(video_frames(97))
