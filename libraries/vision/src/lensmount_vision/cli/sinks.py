"""Where `predict` puts results: a table, annotated pictures and videos, JSON, COCO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.cli.output import out, table, write_atomically, write_json
from lensmount.errors import InputError

if TYPE_CHECKING:
    from lensmount_vision.models.streaming import FrameInfo


class Sinks:
    """Collects results and writes them; files are whole or absent.

    Args:
        model: The loaded model.
        save: Folder for annotated pictures and videos, or None.
        json_file: JSON file, `-` for standard output, or None.
        coco: COCO file, `-` for standard output, or None.
    """

    def __init__(self, model: Any, *, save: Path | None, json_file: str | None, coco: str | None) -> None:
        self._model = model
        self._save = save
        self._json = json_file
        self._coco = coco
        self._quiet = "-" in (json_file, coco)
        self._results: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        self._names: set[Path] = set()
        self._videos: dict[str, VideoWriter] = {}
        if save is not None:
            try:
                save.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"cannot make folder {save}",
                    found=str(error),
                    fix="check that the folder exists and may be written, and that there is room",
                ) from error

    def add(self, info: FrameInfo, result: Any) -> None:
        """Takes one result."""
        if self._json is not None:
            frame = {} if info.frame is None else {"frame": info.frame, "seconds": info.seconds}
            self._results.append({"source": info.source, **frame, **result.to_dict()})
        if self._coco is not None:
            self._add_coco(info, result)
        written = self._draw(info, result) if self._save is not None else None
        if not self._quiet:
            self._print(info, result, written)

    def _print(self, info: FrameInfo, result: Any, written: Path | None) -> None:
        console = out()
        console.print(f"{info.name}: {_summary(result)}", markup=False, soft_wrap=True)
        if info.frame is not None:
            return
        if hasattr(result, "xyxy") and len(result):
            rows = table("class", "confidence", "x1", "y1", "x2", "y2")
            for name, score, box in zip(result.class_name, result.confidence, result.xyxy, strict=True):
                rows.add_row(str(name), f"{score:.3f}", *(f"{value:.1f}" for value in box))
            console.print(rows)
        if written is not None:
            console.print(f"saved {written}", markup=False, soft_wrap=True)

    def _add_coco(self, info: FrameInfo, result: Any) -> None:
        image_id = len(self._images) + 1
        height, width = result.image_size
        self._images.append({"id": image_id, "file_name": info.name, "height": height, "width": width})
        self._annotations += result.to_coco(image_id=image_id, annotation_start=len(self._annotations) + 1)

    def _draw(self, info: FrameInfo, result: Any) -> Path:
        from lensmount_vision.results.drawing import draw

        assert self._save is not None
        # A picture that was decoded reduced for the network is drawn on in full.
        reduced = info.image is not None and info.image.reduced is not None
        picture = draw(info.source if reduced else info.image, result)
        # Pages of a TIFF are pictures of their own, of any size.
        if info.frame is not None and not info.source.lower().endswith((".tif", ".tiff")):
            if info.source not in self._videos:
                if not info.live:  # videos come one after the other, cameras side by side
                    self._close_videos()
                stem = Path(info.source).stem if not info.source.isdigit() else f"camera-{info.source}"
                name = self._unused(self._save / f"{_safe(stem)}.mp4")
                self._videos[info.source] = VideoWriter(name)
            self._videos[info.source].write(picture, info.seconds)
            return self._videos[info.source].path
        path = self._unused(self._save / f"{_safe(Path(info.name.partition('?')[0]).stem)}.jpg")
        from lensmount_vision.images.decoding import import_cv2

        cv2 = import_cv2()
        done, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not done:
            raise InputError(f"cannot encode the annotated picture of {info.name}")
        write_atomically(path, content.tobytes())
        return path

    def _unused(self, path: Path) -> Path:
        """Two pictures of one name in different folders do not overwrite each other within a run."""
        made, number = path, 1
        while made in self._names:
            number += 1
            made = path.with_name(f"{path.stem}-{number}{path.suffix}")
        self._names.add(made)
        return made

    def _close_videos(self) -> None:
        while self._videos:
            self._videos.popitem()[1].close()

    def finish(self) -> None:
        """Writes what is written at the end."""
        self._close_videos()
        if self._json is not None:
            write_json(self._results, self._json)
        if self._coco is not None:
            names = self._model.card.classes
            categories = [{"id": i, "name": name} for i, name in enumerate(names)]
            write_json({"images": self._images, "annotations": self._annotations, "categories": categories}, self._coco)

    def abort(self) -> None:
        """Leaves no half-written file behind."""
        while self._videos:
            self._videos.popitem()[1].discard()


LONGEST = 10.0
"""Seconds that one picture of a video is shown at most, whatever the source's times say."""


class VideoWriter:
    """Writes an annotated video next to its final name, and renames it when it is whole.

    Its rate is that of the first two pictures. One that is shown for longer in the source is written several times, so
    that videos of uneven rates keep their length.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._writer: Any = None
        self._held: list[Any] = []
        self._first = 0.0
        self._rate = 0.0
        self._written = 0
        self._previous: Any = None

    def write(self, picture: Any, seconds: float | None) -> None:
        """Takes the next picture and its time in the source."""
        if self._writer is None:
            self._held.append(picture)  # the rate is known from the second frame on
            if len(self._held) == 1:
                self._first = seconds or 0.0
                return
            gap = (seconds or 0.0) - self._first
            self._open(1 / gap if 0.001 < gap < 1 else 25.0)
        else:
            behind = round(((seconds or 0.0) - self._first) * self._rate) - self._written
            most = round(LONGEST * self._rate)
            if behind > most:
                self._first += (behind - most) / self._rate
            for _ in range(min(behind, most)):
                self._put(self._previous)
            self._put(picture)

    def _put(self, picture: Any) -> None:
        self._writer.write(picture)
        self._written += 1
        self._previous = picture

    def _open(self, rate: float) -> None:
        from lensmount_vision.images.decoding import import_cv2

        cv2 = import_cv2()
        height, width = self._held[0].shape[:2]
        self._writer = cv2.VideoWriter(
            str(self._partial), cv2.VideoWriter_fourcc(*"mp4v"), round(rate, 3), (width, height)
        )
        if not self._writer.isOpened():
            raise InputError(f"cannot write video {self.path}", expected="an OpenCV build with an mp4 encoder")
        self._rate = rate
        for picture in self._held:
            self._put(picture)
        self._held.clear()

    def close(self) -> None:
        """Finishes the file."""
        if self._held:
            self._open(25.0)
        if self._writer is not None:
            self._writer.release()
            self._partial.replace(self.path)

    def discard(self) -> None:
        """Leaves no file behind."""
        if self._writer is not None:
            self._writer.release()
        self._partial.unlink(missing_ok=True)


def _safe(stem: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in stem) or "picture"


def _summary(result: Any) -> str:
    if hasattr(result, "class_name") and hasattr(result, "xyxy"):
        if not len(result):
            return "nothing found"
        counts: dict[str, int] = {}
        for name in result.class_name:
            counts[str(name)] = counts.get(str(name), 0) + 1
        return ", ".join(f"{count} {name}" for name, count in counts.items())
    return str(result)
