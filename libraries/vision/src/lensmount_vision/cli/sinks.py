"""Where `predict` puts results: a table, annotated pictures and videos, JSON, COCO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.cli.output import err, out, table, write_atomically, write_json
from lensmount.errors import InputError
from lensmount_vision.images.writing import VideoWriter

if TYPE_CHECKING:
    from lensmount_vision.models.streaming import FrameInfo


class Sinks:
    """Collects results and writes them; files are whole or absent.

    Args:
        model: The loaded model.
        save: Folder for annotated pictures and videos, or None.
        json_file: JSON file, `-` for standard output, or None.
        coco: COCO file, `-` for standard output, or None.
        video: One video for all frames, in the place of a folder.
    """

    def __init__(
        self,
        model: Any,
        *,
        save: Path | None = None,
        json_file: str | None = None,
        coco: str | None = None,
        video: Path | None = None,
    ) -> None:
        self._model = model
        self._save = save
        self._video = video
        self._json = json_file
        self._coco = coco
        self._quiet = "-" in (json_file, coco)
        self._results: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        self._names: set[Path] = set()
        self._videos: dict[str, VideoWriter] = {}
        folder = save if video is None else video.parent
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"cannot make folder {folder}",
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
        written = self._draw(info, result) if self._save is not None or self._video is not None else None
        if not self._quiet:
            self._print(info, result, written)

    def _print(self, info: FrameInfo, result: Any, written: Path | None) -> None:
        console = out()
        console.print(f"{info.name}: {_summary(result)}", markup=False, soft_wrap=True)
        if info.frame is not None or self._video is not None:
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

        # A picture that was decoded reduced for the network is drawn on in full.
        reduced = info.image is not None and info.image.reduced is not None
        picture = draw(info.source if reduced else info.image, result)
        if self._video is not None:
            return self._film(self._video, picture, info)
        assert self._save is not None
        # Pages of a TIFF are pictures of their own, of any size.
        if info.frame is not None and not info.source.lower().endswith((".tif", ".tiff")):
            return self._film(None, picture, info)
        path = self._unused(self._save / f"{_safe(Path(info.name.partition('?')[0]).stem)}.jpg")
        from lensmount_vision.images.decoding import import_cv2

        cv2 = import_cv2()
        done, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not done:
            raise InputError(f"cannot encode the annotated picture of {info.name}")
        write_atomically(path, content.tobytes())
        return path

    def _film(self, path: Path | None, picture: Any, info: FrameInfo) -> Path:
        """Adds a frame to the video of its source, or to the one of all."""
        key = info.source if path is None else ""
        if key not in self._videos:
            if path is None:
                assert self._save is not None
                if not info.live:  # videos come one after the other, cameras side by side
                    self._close_videos()
                stem = Path(info.source).stem if not info.source.isdigit() else f"camera-{info.source}"
                path = self._unused(self._save / f"{_safe(stem)}.mp4")
            self._videos[key] = VideoWriter(path)
        self._videos[key].write(picture, info.seconds)
        return self._videos[key].path

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
        if self._video is not None and self._video.exists():
            err().print(f"saved {self._video}", markup=False, soft_wrap=True)
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


def _safe(stem: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in stem) or "picture"


def _summary(result: Any) -> str:
    if hasattr(result, "class_name") and hasattr(result, "xyxy"):
        if not len(result):
            return "nothing found"
        if result.tracker_id is not None:
            rows = zip(result.tracker_id.tolist(), result.class_name.tolist(), strict=True)
            return ", ".join(f"#{number} {name}" if number > 0 else name for number, name in rows)
        counts: dict[str, int] = {}
        for name in result.class_name:
            counts[str(name)] = counts.get(str(name), 0) + 1
        return ", ".join(f"{count} {name}" for name, count in counts.items())
    return str(result)
