"""Videos written frame by frame, in a codec that browsers play where there is an encoder for one."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import suppress
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lensmount.errors import InputError, OptionError
from lensmount.specs.options import one_of
from lensmount_vision.images.decoding import import_cv2

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from typing_extensions import Self

LONGEST = 10.0
"""Seconds that one picture of a video is shown at most, whatever the source's times say."""

CODECS = ("h264", "vp9", "av1", "mpeg4")
SUFFIXES = {".mp4": CODECS, ".mov": ("h264", "mpeg4"), ".mkv": CODECS, ".webm": ("vp9", "av1")}
"""What each kind of file may hold."""

# Encoders of FFmpeg by codec, with settings for speed, through PyAV; and OpenCV's four letters.
_ENCODERS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "h264": (("libx264", {"crf": "23", "preset": "veryfast"}), ("libopenh264", {})),
    "vp9": (("libvpx-vp9", {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"}),),
    "av1": (("libsvtav1", {"crf": "35", "preset": "10"}),),
    "mpeg4": (("mpeg4", {"q": "4"}),),
}
_LETTERS = {("vp9", ".webm"): "VP90", ("vp9", ".mkv"): "VP90", ("av1", ".webm"): "AV01", ("av1", ".mkv"): "AV01"}
_USUAL = {"vp9": "vp09", "h264": "avc1", "av1": "av01", "mpeg4": "mp4v"}


class OldCodecNotice(UserWarning):
    """A video is written in MPEG-4 Part 2, which browsers do not play: no newer encoder was found. Said once."""


class _Sink(Protocol):
    """What takes frames of one size: `(H, W, 3)` uint8 BGR, even in both sides."""

    def put(self, picture: NDArray[np.uint8]) -> None: ...

    def close(self) -> None: ...

    def seen(self, path: Path) -> list[float]:
        """The mean grey of each frame of a finished file."""


class VideoWriter:
    """Writes a video next to its final name, and renames it when it is whole.

    Its rate is that of the first two frames where `fps` does not say it. A frame that is shown for longer in its source
    is written several times, so that videos of uneven rates keep their length.

        with VideoWriter("annotated.mp4") as video:
            for info, result in model.stream("clip.mp4"):
                video.write(result.draw(info.image), info.seconds)

    Args:
        path: Where it goes: `.mp4`, `.mov`, `.mkv` or `.webm`.
        fps: Frames in a second; None to take the times of the first two, or 25 where they have none.
        codec: `"h264"`, `"vp9"`, `"av1"`, `"mpeg4"`; `"auto"` for the first of them that can be encoded here.

    Raises:
        OptionError: The suffix, rate or codec is not one of these, or they do not go together.
    """

    def __init__(self, path: str | Path, *, fps: float | None = None, codec: str = "auto") -> None:
        self.path = Path(path)
        allowed = SUFFIXES.get(self.path.suffix.lower())
        if allowed is None:
            raise OptionError(
                "a video cannot be written so", found=str(path), expected="a name in " + " ".join(SUFFIXES)
            )
        one_of("codec", codec, ("auto", *CODECS))
        if codec not in ("auto", *allowed):
            raise OptionError(
                f"{self.path.suffix} does not hold {codec}", found=str(path), expected=f"codec {' or '.join(allowed)}"
            )
        if fps is not None and not 0 < float(fps) <= 1000:
            raise OptionError("fps is out of range", found=repr(fps), expected="more than 0, at most 1000")
        self.codec = codec
        self.frames = 0
        self._allowed = allowed if codec == "auto" else (codec,)
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        self._sink: _Sink | None = None
        self._held: list[NDArray[np.uint8]] = []
        self._first = 0.0
        self._rate = 0.0 if fps is None else float(fps)
        self._paced = fps is None
        self._size: tuple[int, int] | None = None
        self._previous: NDArray[np.uint8] | None = None

    def write(self, picture: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Takes the next frame.

        Args:
            picture: `(H, W, 3)` uint8 in BGR, as `result.draw` gives it; all of one size.
            seconds: Its time in the source; None where there is none, and every frame is shown for as long.

        Raises:
            InputError: It is no such picture, of another size than the first, or the video cannot be written.
        """
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise InputError(
                "this is no frame of a video", found=f"{array.dtype} {array.shape}", expected="(H, W, 3) uint8 in BGR"
            )
        if self._size is not None and array.shape[:2] != self._size:
            raise InputError(
                f"a frame of {self.path} has another size than the first",
                found=str(array.shape[:2]),
                expected=str(self._size),
                fix="one video has frames of one size: write others to a file of their own",
            )
        self._size = (array.shape[0], array.shape[1])
        if self._sink is None:
            self._begin(array, seconds)
            return
        if self._paced and seconds is not None:
            behind = round((seconds - self._first) * self._rate) - self.frames
            most = round(LONGEST * self._rate)
            if behind > most:
                self._first += (behind - most) / self._rate
            for _ in range(min(behind, most)):
                assert self._previous is not None
                self._put(self._previous)
        self._put(array)

    def _begin(self, array: NDArray[np.uint8], seconds: float | None) -> None:
        if not self._rate:  # known from the second frame on
            self._held.append(array.copy())
            if len(self._held) == 1:
                self._first = seconds or 0.0
                return
            gap = (seconds or 0.0) - self._first
            self._rate = round(1 / gap, 3) if 0.001 < gap < 1 else 25.0
        else:
            self._held.append(array)
        self._open()

    def _open(self) -> None:
        height, width = self._held[0].shape[:2]
        size = (height + height % 2, width + width % 2)
        self.codec, self._sink = _best(self._partial, self._allowed, size, self._rate)
        if self.codec == "mpeg4" and "h264" in self._allowed:
            _notice()
        for picture in self._held:
            self._put(picture)
        self._held.clear()

    def _put(self, picture: NDArray[np.uint8]) -> None:
        assert self._sink is not None
        height, width = picture.shape[:2]
        self._previous = picture
        if height % 2 or width % 2:  # colours are stored for two by two pixels
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._sink.put(np.ascontiguousarray(picture))
        except OSError as error:
            raise self._refused(str(error)) from error
        self.frames += 1

    def _refused(self, why: str) -> InputError:
        return InputError(f"cannot write video {self.path}", found=why, fix="check the folder and the room on the disk")

    def close(self) -> None:
        """Finishes the file; without any frame there is none. A second call does nothing."""
        if self._held:
            self._rate = self._rate or 25.0
            self._open()
        if self._sink is not None:
            sink, self._sink = self._sink, None
            try:
                sink.close()
                self._partial.replace(self.path)
            except OSError as error:
                raise self._refused(str(error)) from error

    def discard(self) -> None:
        """Leaves no file behind."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            with suppress(Exception):
                sink.close()
        self._held.clear()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close()
        else:
            self.discard()


_told = False


def _notice() -> None:
    global _told
    if not _told:
        _told = True
        text = "no encoder of H.264, VP9 or AV1 was found: the video is in MPEG-4 Part 2, which browsers do not play "
        warnings.warn(text + "(pip install av brings encoders; said once)", OldCodecNotice, stacklevel=4)


def _best(path: Path, allowed: tuple[str, ...], size: tuple[int, int], rate: float) -> tuple[str, _Sink]:
    """The first codec that an encoder here was seen to write, opened."""
    found = []
    for codec in allowed:
        # OpenCV's own VP9 takes half a second for a frame of 1080p: it is used where it is asked for.
        way = encoder(codec, path.suffix.lower(), slow=len(allowed) == 1)
        if way is None:
            found.append(f"no encoder of {codec}")
            continue
        try:
            return codec, way(path, size, rate)
        except (OSError, ValueError) as error:  # an encoder may not take this size
            found.append(f"{codec}: {error}")
    raise InputError(
        f"cannot write video {path.name.replace('.partial', '').lstrip('.')}",
        found="; ".join(found),
        expected="an encoder, and a folder that may be written",
        fix="pip install av",
    )


@cache
def encoder(codec: str, suffix: str, *, slow: bool) -> Callable[[Path, tuple[int, int], float], _Sink] | None:
    """The first encoder that wrote a small video which could be read again; tried once in a process.

    Args:
        codec: One of `CODECS`.
        suffix: One of `SUFFIXES`.
        slow: Whether one that keeps no video's pace counts.
    """
    tried: list[Any] = [partial(_AvSink, name=name, settings=settings) for name, settings in _ENCODERS[codec]]
    if slow or codec not in ("vp9", "av1"):
        tried.append(partial(_CvSink, letters=_LETTERS.get((codec, suffix), _USUAL[codec])))
    return next((way for way in tried if _works(way, suffix)), None)


def _works(way: Any, suffix: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="lensmount-") as folder:
        path = Path(folder) / f"try{suffix}"
        try:
            sink = way(path, (64, 64), 25.0)
            for grey in (0, 90, 180):
                sink.put(np.full((64, 64, 3), grey, np.uint8))
            sink.close()
            seen = sink.seen(path)
        except Exception:  # whatever goes wrong in a library that is only tried
            return False
        return len(seen) == 3 and all(abs(a - b) < 20 for a, b in zip(seen, (0, 90, 180), strict=True))


class _AvSink:
    """An encoder of FFmpeg, through PyAV."""

    def __init__(self, path: Path, size: tuple[int, int], rate: float, *, name: str, settings: dict[str, str]) -> None:
        import av

        options = {"movflags": "+faststart"} if path.suffix.lower() in (".mp4", ".mov") else {}
        self._av: Any = av
        self._container: Any = av.open(str(path), "w", options=options)
        try:
            frequency = Fraction(rate).limit_denominator(1001)
            self._stream: Any = self._container.add_stream(name, rate=frequency, options=settings)
            self._stream.height, self._stream.width = size
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.open()
        except Exception:
            with suppress(Exception):
                self._container.close()
            path.unlink(missing_ok=True)
            raise

    def put(self, picture: NDArray[np.uint8]) -> None:
        frame = self._av.VideoFrame.from_ndarray(picture, format="bgr24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()

    def seen(self, path: Path) -> list[float]:
        with self._av.open(str(path)) as container:
            return [float(frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]


class _CvSink:
    """An encoder that OpenCV was built with, or the system's."""

    def __init__(self, path: Path, size: tuple[int, int], rate: float, *, letters: str) -> None:
        cv2 = import_cv2()
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*letters), round(rate, 3), size[::-1])
        if not self._writer.isOpened():
            path.unlink(missing_ok=True)
            raise OSError(f"OpenCV does not write {letters}")

    def put(self, picture: NDArray[np.uint8]) -> None:
        self._writer.write(picture)

    def close(self) -> None:
        self._writer.release()

    def seen(self, path: Path) -> list[float]:
        capture = import_cv2().VideoCapture(str(path))
        means = []
        while (read := capture.read())[0]:
            means.append(float(read[1].mean()))
        capture.release()
        return means
