"""Videos written: codecs that were seen to work, whole files or none, sizes, rates, and what is refused."""

from __future__ import annotations

import sys
import warnings

import cv2
import numpy as np
import pytest

from lensmount.errors import InputError, OptionError
from lensmount_vision.images import VideoWriter, writing


def frame(grey, size=(48, 64)):
    return np.full((*size, 3), grey, np.uint8)


def read(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while (got := capture.read())[0]:
        found.append(got[1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return found, rate


@pytest.fixture
def without_av(monkeypatch):
    """OpenCV alone, as where PyAV is not installed."""
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(writing, "_told", False)
    writing.encoder.cache_clear()
    yield
    writing.encoder.cache_clear()


@pytest.mark.parametrize("suffix", writing.SUFFIXES)
@pytest.mark.parametrize("codec", ["auto", *writing.CODECS])
def test_every_codec_in_every_file_that_holds_it(tmp_path, suffix, codec):
    av = pytest.importorskip("av")
    path = tmp_path / f"out{suffix}"
    if codec not in ("auto", *writing.SUFFIXES[suffix]):
        with pytest.raises(OptionError, match=codec):
            VideoWriter(path, codec=codec)
        return
    with VideoWriter(path, fps=10, codec=codec) as video:
        for grey in (10, 120, 240):
            video.write(frame(grey))
    names = {"h264": "h264", "vp9": "vp9", "av1": "av1", "mpeg4": "mpeg4"}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        means = [picture.to_ndarray(format="gray").mean() for picture in container.decode(video=0)]
        assert names[video.codec] in stream.codec_context.codec.canonical_name
        assert stream.codec_context.pix_fmt == "yuv420p"  # what browsers show
        assert float(stream.average_rate) == pytest.approx(10, rel=0.02)
    assert np.allclose(means, (10, 120, 240), atol=12)
    assert video.frames == 3
    if codec == "auto":
        assert video.codec == ("vp9" if suffix == ".webm" else "h264")
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_the_index_comes_first_so_that_browsers_can_begin(tmp_path):
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "a.mp4", fps=5) as video:
        for grey in range(20):
            video.write(frame(grey))
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (33, 17)])
def test_odd_sizes_are_padded_at_the_edge(tmp_path, size):
    with VideoWriter(tmp_path / "a.mp4", fps=5) as video:
        for _ in range(3):
            video.write(frame(130, size))
    (first, *_), _ = read(tmp_path / "a.mp4")
    assert first.shape[:2] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert abs(float(first[-1, -1].mean()) - 130) < 12


def test_without_an_encoder_it_is_said_once(tmp_path, without_av):
    told = pytest.warns(writing.OldCodecNotice, match="pip install av")
    with told, VideoWriter(tmp_path / "a.mp4", fps=5) as video:
        for grey in (0, 100):
            video.write(frame(grey))
    assert video.codec == "mpeg4"
    assert len(read(tmp_path / "a.mp4")[0]) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with VideoWriter(tmp_path / "b.mp4", fps=5) as video:
            video.write(frame(0))
    refused = pytest.raises(InputError, match="av1")  # asked for by name, and not replaced
    with refused, VideoWriter(tmp_path / "c.mp4", fps=5, codec="av1") as video:
        video.write(frame(0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_an_encoder_that_writes_rubbish_is_not_taken(tmp_path, monkeypatch):
    writing.encoder.cache_clear()
    monkeypatch.setattr(writing._AvSink, "seen", lambda self, path: [0.0, 90.0])
    monkeypatch.setattr(writing, "_told", True)
    try:
        with VideoWriter(tmp_path / "a.mp4", fps=5) as video:
            video.write(frame(0))
        assert video.codec == "mpeg4"  # OpenCV's
    finally:
        writing.encoder.cache_clear()


def test_the_rate_is_that_of_the_first_frames_or_the_one_asked_for(tmp_path):
    for fps, expected in ((None, 20.0), (7.0, 7.0)):
        path = tmp_path / f"{expected}.mp4"
        with VideoWriter(path, fps=fps) as video:
            for i in range(10):
                video.write(frame(20 * i), i / 20)
        found, rate = read(path)
        assert rate == pytest.approx(expected, rel=0.02)
        assert len(found) == 10


def test_what_fails_or_is_left_out_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "a.mp4", fps=5) as video:
        video.write(frame(0))
        raise ZeroDivisionError
    with VideoWriter(tmp_path / "b.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "c.mp4", fps=5) as video:
        video.write(frame(0))
        raise KeyboardInterrupt
    assert len(read(tmp_path / "c.mp4")[0]) == 1  # what was done until then


def test_frames_that_do_not_fit_are_refused(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", fps=5) as video:
        video.write(frame(0))
        for wrong in (frame(0, (50, 64)), np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.float32)):
            with pytest.raises(InputError, match="frame"):
                video.write(wrong)
    assert len(read(tmp_path / "a.mp4")[0]) == 1


@pytest.mark.parametrize(
    ("name", "options"), [("a.gif", {}), ("a", {}), ("a.mp4", {"codec": "hevc"}), ("a.mp4", {"fps": 0})]
)
def test_bad_options(tmp_path, name, options):
    with pytest.raises(OptionError):
        VideoWriter(tmp_path / name, **options)


def test_a_folder_that_is_not_there(tmp_path):
    refused = pytest.raises(InputError, match="cannot write")
    with refused, VideoWriter(tmp_path / "no folder" / "a.mp4", fps=5) as video:
        video.write(frame(0))
    assert list(tmp_path.iterdir()) == []
