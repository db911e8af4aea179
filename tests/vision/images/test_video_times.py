"""Frames have the times that their file says, however uneven they are."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from lensmount_vision.images.sources import video_frames
from lensmount_vision.images.writing import LONGEST, VideoWriter

UNEVEN = (0, 20, 400, 420, 1500, 3000)
TIMES = {
    "even": (0, 40, 80, 120, 160),
    "uneven": UNEVEN,
    "slower and slower": (0, 10, 30, 70, 150, 310, 630),
    "a long pause": (0, 33, 60_000, 60_033),
    "two": (0, 5000),
    "many": tuple(i * 40 + i % 3 * 7 for i in range(60)),
}


def pictures(count):
    for index in range(count):
        yield np.full((48, 64, 3), index * 255 // max(count - 1, 1), np.uint8)


def written(path, fourcc, count, rate=25.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), rate, (64, 48))
    assert writer.isOpened()
    for picture in pictures(count):
        writer.write(picture)
    writer.release()
    return path


def with_times(data, times):
    """An MP4 file whose frames were of one length, with other times: its table of lengths (`stts`) is replaced."""
    place = data.index(b"stts") - 4
    old = struct.unpack_from(">I", data, place)[0]
    header = data.index(b"mdhd")
    scale = struct.unpack_from(">I", data, header + 16)[0]
    ticks = [round(t * scale / 1000) for t in times]
    lengths = [b - a for a, b in zip(ticks, (*ticks[1:], ticks[-1] + scale // 25), strict=True)]
    entries = b"".join(struct.pack(">II", 1, length) for length in lengths)
    box = struct.pack(">I", 16 + len(entries)) + b"stts" + struct.pack(">II", 0, len(lengths)) + entries
    made = bytearray(data[:place] + box + data[place + old :])
    grown = len(box) - old
    assert data.index(b"moov") > data.index(b"mdat")  # frames lie before what grows: their places stay
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        parent = made.index(name) - 4
        made[parent : parent + 4] = struct.pack(">I", struct.unpack_from(">I", made, parent)[0] + grown)
    total = ticks[-1] + scale // 25  # else an edit list of the old length ends the film early
    at = made.index(b"elst")
    movie = struct.unpack_from(">I", made, made.index(b"mvhd") + 16)[0]
    made[at + 12 : at + 16] = struct.pack(">I", total * movie // scale + 1)
    return bytes(made)


@pytest.mark.parametrize("name", TIMES)
def test_mp4(tmp_path, name):
    times = TIMES[name]
    path = written(tmp_path / "v.mp4", "mp4v", len(times))
    path.write_bytes(with_times(path.read_bytes(), times))
    frames = list(video_frames(path))
    assert [frame.seconds * 1000 for frame in frames] == pytest.approx(times, abs=1)
    assert [frame.number for frame in frames] == list(range(len(times)))
    assert [f.seconds * 1000 for f in video_frames(path, stride=2)] == pytest.approx(times[::2], abs=1)


WRITE = """
import json, sys
from fractions import Fraction
import av, numpy as np
path, codec, options, times = json.loads(sys.argv[1])
with av.open(path, "w") as container:
    stream = container.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000)
    for i, at in enumerate(times):
        picture = np.full((48, 64, 3), i * 255 // max(len(times) - 1, 1), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts, frame.time_base = at, Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
"""


@pytest.mark.skipif(find_spec("av") is None, reason="PyAV, which writes these files, is not installed")
@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mp4", "mpeg4", {}),
        ("mp4", "libx264", {"bf": "3"}),  # frames lie in the file in another order than they are shown in
        ("mkv", "libx264", {"bf": "2"}),
        ("mov", "libx264", {}),
        ("webm", "libvpx-vp9", {}),
        ("ts", "libx264", {"bf": "2"}),
    ],
)
@pytest.mark.parametrize("name", ["uneven", "slower and slower", "many"])
def test_containers(tmp_path, suffix, codec, options, name):
    times = TIMES[name]
    path = tmp_path / f"v.{suffix}"
    arguments = json.dumps([str(path), codec, options, times])
    # In a process of its own: PyAV and OpenCV each bring libraries of FFmpeg under the same names.
    subprocess.run([sys.executable, "-c", WRITE, arguments], check=True)
    made = list(video_frames(path))
    assert [frame.seconds * 1000 for frame in made] == pytest.approx(times, abs=1.5)  # ticks of the container
    shown = [frame.image.pixels.mean() for frame in made]
    # Codecs lose some grey values at this size; frames in another order would differ by many.
    assert shown == pytest.approx([i * 255 // (len(times) - 1) for i in range(len(times))], abs=12)


@pytest.mark.parametrize("rate", [5.0, 12.5, 24.0, 30.0])
def test_even_rates(tmp_path, rate):
    path = written(tmp_path / "v.avi", "MJPG", 9, rate)
    assert [frame.seconds for frame in video_frames(path)] == pytest.approx([i / rate for i in range(9)], abs=1e-3)


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),  # no time stamps
        ([float("nan")] * 3, [0, 0.1, 0.2]),
        ([-1, -1, -1], [0, 0.1, 0.2]),
        ([0, 0.5, 0.7, 0.0, 0.3], [0, 0.5, 0.7, 0.8, 1.1]),  # two recordings, one after the other
        ([2, 2.5, 3], [2, 2.5, 3]),
        ([-0.2, 0, 0.2], [0, 0.2, 0.4]),
    ],
)
def test_times_that_are_missing_or_start_anew(monkeypatch, tmp_path, stamps, expected):
    path = written(tmp_path / "v.avi", "MJPG", len(stamps), 10.0)

    class Capture:
        def __init__(self, real):
            self.real, self.asked = real, iter(stamps)

        def __getattr__(self, name):
            return getattr(self.real, name)

        def get(self, what):
            return next(self.asked) * 1000 if what == cv2.CAP_PROP_POS_MSEC else self.real.get(what)

    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: Capture(opened(source)))
    assert [frame.seconds for frame in video_frames(path)] == pytest.approx(expected)


@pytest.mark.parametrize("times", [UNEVEN, (0, 40, 80, 120), (0, 100, 200, 1200)])
def test_annotated_videos_keep_their_length(tmp_path, times):
    writer = VideoWriter(tmp_path / "out.mp4")
    for at, picture in zip(times, pictures(len(times)), strict=True):
        writer.write(picture, at / 1000)
    writer.close()
    shown = list(video_frames(tmp_path / "out.mp4"))
    gap = times[1] - times[0]
    assert len(shown) == times[-1] // gap + 1
    assert shown[-1].seconds * 1000 == pytest.approx(times[-1], abs=2)
    levels = [frame.image.pixels.mean() for frame in shown]
    for index, at in enumerate(times):  # each picture is there at its time
        assert levels[at // gap] == pytest.approx(index * 255 // (len(times) - 1), abs=6)


def test_a_leap_in_time_is_shown_for_a_while_only(tmp_path):
    writer = VideoWriter(tmp_path / "out.mp4")
    times = (0, 0.1, 0.2, 1e6, 1e6 + 0.1, 1e6 + 0.2)
    for at, picture in zip(times, pictures(len(times)), strict=True):
        writer.write(picture, at)
    writer.close()
    assert len(list(video_frames(tmp_path / "out.mp4"))) == len(times) + LONGEST / 0.1


def test_a_film_of_uneven_rate(reference_data):
    path = reference_data / "cases" / "vfr.mp4"
    assert [round(frame.seconds * 1000) for frame in video_frames(path)] == list(UNEVEN)
