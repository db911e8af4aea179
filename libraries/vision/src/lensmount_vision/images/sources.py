"""Where pictures come from on the command line and the network: files, folders, globs, URLs, videos, cameras."""

from __future__ import annotations

import base64
import glob
import http.client
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lensmount.errors import ImageError, OfflineError
from lensmount.specs.offline import is_offline
from lensmount_vision.images.decoding import check_size, import_cv2, pixel_limit
from lensmount_vision.images.image import Image

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".jp2",
        ".j2k",
        ".pbm",
        ".pgm",
        ".ppm",
        ".pnm",
        ".avif",
    ]
)
VIDEO_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".asf", ".flv", ".3gp", ".ogv"]
)
STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "udp://", "tcp://", "srt://")

_CONNECT_SECONDS = 15.0
_TOTAL_SECONDS = 120.0
_MAX_DOWNLOAD = 256 * 1024 * 1024


def expand_sources(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Turns what a user typed into single sources.

    A file, URL, stream address or camera index stands for itself; a folder for the images and videos directly in it;
    a glob (`*`, `?`, `[…]`, `**`) for the images and videos it matches. The order is that of the arguments, and by
    name within each.

    Args:
        sources: One source or several.

    Yields:
        Paths, addresses or camera indices, as text. A missing file is yielded too: loading it reports it, and the
        others go on.

    Raises:
        ImageError: A folder or glob has no image or video.
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    for source in sources:
        text = os.fspath(source)
        if "://" in text or text.startswith("data:") or is_video(text):
            yield text
            continue
        path = Path(text)
        if path.is_dir():
            yield from _media(path.iterdir(), f"the folder {text}")
        elif not path.exists() and glob.has_magic(text):
            # `glob.glob` and not Path.glob: the pattern may be absolute, and is the user's.
            yield from _media(map(Path, glob.glob(text, recursive=True)), f"the pattern {text!r}")  # noqa: PTH207
        else:
            yield text


def _media(paths: Iterable[Path], what: str) -> list[str]:
    everything = list(paths)
    media = sorted(
        str(p)
        for p in everything
        if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not p.name.startswith(".") and p.is_file()
    )
    if not media:
        raise ImageError(
            f"{what} has no images",
            found=f"{len(everything)} entries, none with an image's or video's suffix",
            expected="files ending in " + " ".join(sorted(IMAGE_SUFFIXES)),
            fix="folders are not searched recursively: use a glob such as 'folder/**/*.jpg'",
        )
    return media


def is_video(source: str | int | os.PathLike[str]) -> bool:
    """Whether a source is a video file, a stream or a camera index, by its name alone."""
    if isinstance(source, int | np.integer):
        return True
    text = os.fspath(source).lower()
    if text.startswith(STREAM_SCHEMES) or (text.isdecimal() and not Path(text).exists()):
        return True
    return Path(text.split("?", 1)[0]).suffix in VIDEO_SUFFIXES


def shown(address: str) -> str:
    """An address as errors may show it: without user, password and query. Malformed ones are shown too."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    host, slash, path = rest.partition("/")
    return scheme + mark + host.rpartition("@")[2] + slash + path.partition("?")[0].partition("#")[0]


def _request(url: str) -> urllib.request.Request:
    headers = {"User-Agent": "lensmount", "Accept": "image/*,*/*;q=0.5"}
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    login, at, host = host.rpartition("@")
    request = urllib.request.Request(f"{scheme}://{host}{slash}{path}", headers=headers)
    if at:
        token = base64.b64encode(urllib.parse.unquote_to_bytes(login)).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")  # never sent on to another host
    return request


def fetch(url: str, limit: int) -> bytes:
    """Downloads an image's bytes.

    Args:
        url: `http://` or `https://`.
        limit: Pixel limit, which also bounds the bytes.

    Returns:
        The body of the answer.

    Raises:
        OfflineError: Offline was asked for.
        ImageError: The server cannot be reached, refuses, or sends too much or too slowly.
    """
    if is_offline():
        raise OfflineError(
            f"{shown(url)} was not opened: offline was asked for",
            found="LENSMOUNT_OFFLINE, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set",
            fix="download the image beforehand and pass its path, or unset the variable",
        )
    try:
        with urllib.request.urlopen(_request(url), timeout=_CONNECT_SECONDS) as answer:
            return _read_bounded(answer, url, min(_MAX_DOWNLOAD, 8 * limit + (1 << 20)))
    except urllib.error.HTTPError as error:
        raise ImageError(
            f"{shown(url)} was refused",
            found=f"HTTP {error.code} {error.reason}",
            fix="check the address; one that wants credentials has to be downloaded first",
        ) from error
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(
            f"{shown(url)} cannot be downloaded", found=str(error), fix="check the address and the network"
        ) from error
    except (ValueError, http.client.HTTPException) as error:  # their text may hold the whole address
        raise ImageError(
            f"{shown(url)} cannot be downloaded", found=type(error).__name__, fix="check the address"
        ) from error


def _read_bounded(answer: Any, url: str, most: int) -> bytes:
    deadline = time.monotonic() + _TOTAL_SECONDS
    parts: list[bytes] = []
    total = 0
    while part := answer.read(1 << 18):
        parts.append(part)
        total += len(part)
        if total > most:
            raise ImageError(f"{shown(url)} is too large for an image", found=f"more than {most} bytes")
        if time.monotonic() > deadline:
            raise ImageError(f"{shown(url)} takes too long", found=f"{total} bytes in {_TOTAL_SECONDS:.0f} s")
    declared = answer.headers.get("Content-Length")
    if declared is not None and declared.isdecimal() and int(declared) != total:
        raise ImageError(f"{shown(url)} broke off", found=f"{total} bytes", expected=f"{declared} bytes")
    return b"".join(parts)


class Frame(NamedTuple):
    """One frame of a video.

    Attributes:
        number: Counts from 0.
        seconds: Time since the start: of files as the container has it, so that frames may lie unevenly; of cameras and
            streams since they were opened.
        image: The picture, BGR.
    """

    number: int
    seconds: float
    image: Image


def video_frames(source: str | int | os.PathLike[str], *, stride: int = 1) -> Iterator[Frame]:
    """Reads a video, stream or camera frame by frame.

    Args:
        source: Path of a video, stream address (`rtsp://…`), or camera index (`0`, `"0"`).
        stride: Yields every so many frames.

    Yields:
        The frames. The capture is released when the generator ends or is closed.

    Raises:
        ImageError: The video does not exist, cannot be opened, or has no frame.
        OfflineError: A stream, while offline was asked for.
    """
    if stride < 1:
        raise ImageError("stride is not valid", found=str(stride), expected="1 or more")
    text = str(source) if isinstance(source, int | np.integer) else os.fspath(source)
    if "://" in text and is_offline():
        raise OfflineError(f"{shown(text)} was not opened: offline was asked for", fix="unset LENSMOUNT_OFFLINE")
    camera = text.isdecimal() and not Path(text).exists()
    if not camera and "://" not in text and not Path(text).is_file():
        raise ImageError(f"{text} does not exist", expected="a video file, a stream address or a camera index")
    cv2 = import_cv2()
    try:
        capture = cv2.VideoCapture(int(text) if camera else text)
    except cv2.error as error:
        raise _no_video(text, camera, str(error)) from error
    try:
        if not capture.isOpened():
            raise _no_video(text, camera, None)
        size = (int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
        check_size(size, text, pixel_limit())
        yield from _frames(capture, cv2, text, stride)
    finally:
        capture.release()


def _frames(capture: Any, cv2: Any, text: str, stride: int) -> Iterator[Frame]:
    rate = float(capture.get(cv2.CAP_PROP_FPS) or 0)
    start = time.monotonic()
    live = "://" in text or not Path(text).exists()
    clock = _Clock(1 / rate if rate > 0 else 0.0)
    index = 0
    while capture.grab():
        now = time.monotonic() - start if live else clock.read(float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000)
        if index % stride == 0:
            ok, pixels = capture.retrieve()
            if not ok or pixels is None:
                break
            if pixels.ndim == 2:
                pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
            pixels.flags.writeable = False
            yield Frame(index, now, Image(pixels, "bgr", text))
        index += 1
    if index == 0:
        raise ImageError(
            f"{shown(text)} has no frame that can be read", fix="it may be truncated, or of an unknown codec"
        )


class _Clock:
    """Times of a file's frames: the container's, and the rate's where it has none or starts anew.

    Args:
        step: Seconds between frames by the file's rate; 0 where it does not say.
    """

    def __init__(self, step: float) -> None:
        self._step = step or 0.04
        self._stamp = -math.inf
        self._seconds = 0.0

    def read(self, stamp: float) -> float:
        """The time of the next frame, later than that of the last one, by what the container says of it in seconds."""
        if not math.isfinite(stamp):
            stamp = self._stamp
        if self._stamp == -math.inf:
            self._seconds = stamp if 0 < stamp < math.inf else 0.0
        elif stamp > self._stamp:
            self._seconds += stamp - self._stamp
        else:  # no time stamps, or those of several recordings one after the other
            self._seconds += self._step
        self._stamp = max(stamp, -1.0)
        return self._seconds


def _no_video(text: str, camera: bool, found: str | None) -> ImageError:
    if camera:
        return ImageError(
            f"camera {text} cannot be opened", found=found, fix="check that it is connected and not in use"
        )
    fix = "check the address, user and password" if "://" in text else "convert it to H.264 in an .mp4 file"
    return ImageError(f"{shown(text)} cannot be opened as a video", found=found, fix=fix)
