"""`/sam2/…`: masks of what prompts point at."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from lensmount_serve.answers import Json
from lensmount_serve.failures import AnswerError
from lensmount_serve.pool import Held
from lensmount_serve.routes.shared import FAILURES, Shared, source_of, took
from lensmount_serve.schemas import Prompt, PromptSet, Sam2EmbedBody, Sam2SegmentBody
from lensmount_serve.wire import rle
from lensmount_vision.images import image_key

router = APIRouter(tags=["segmentation"], default_response_class=Json, responses=FAILURES)
_REMEMBERED = 16  # embeddings by name; each holds some 16 MB


class Remembered:
    """Embeddings by the name that a client gave to a picture; the oldest go."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._lock = Lock()

    def get(self, model: str, name: str) -> Any:
        """The embedding of that name, or None."""
        with self._lock:
            found = self._kept.get((model, name))
            if found is not None:
                self._kept.move_to_end((model, name))
            return found

    def put(self, model: str, name: str, embedding: Any) -> None:
        """Keeps one."""
        with self._lock:
            self._kept[model, name] = embedding
            while len(self._kept) > _REMEMBERED:
                self._kept.popitem(last=False)


@router.post("/sam2/embed_image")
async def embed_image(body: Sam2EmbedBody, service: Shared, request: Request) -> Json:
    """Encodes a picture, so that prompts on it are quick; the name to ask by."""
    remembered: Remembered = request.app.state.remembered
    name = _name(body.sam2_version_id, body.model_id)

    def work(model: Any, pictures: list[Any]) -> str:
        (made,) = model.embed_images(pictures)
        given = body.image_id or image_key(pictures[0])[:12]
        remembered.put(name, given, made)
        return given

    given, answer = await service.alone(name, [source_of(body.image)], work, prepare=_check)
    return Json({"image_id": given, "time": took(answer)})


@router.post("/sam2/segment_image")
async def segment_image(body: Sam2SegmentBody, service: Shared, request: Request) -> Response:
    """The best mask of each prompt, as polygons, run lengths, or an `.npz` of arrays."""
    remembered: Remembered = request.app.state.remembered
    name = _name(body.sam2_version_id, body.model_id)
    prompts = _prompts(body.prompts)
    count = sum(len(prompt.points or ()) + (prompt.box is not None) for prompt in prompts)
    if count > service.settings.max_prompts:
        raise AnswerError(400, f"a request has at most {service.settings.max_prompts} points and boxes")
    known = None if body.image is not None or body.image_id is None else remembered.get(name, body.image_id)
    if body.image is None and known is None:
        raise AnswerError(400, "there is no picture: send image, or the image_id of one that was embedded")

    def work(model: Any, pictures: list[Any]) -> list[Any]:
        embedding = known
        if embedding is None:
            (embedding,) = model.embed_images(pictures)
            if body.image_id is not None:
                remembered.put(name, body.image_id, embedding)
        return _segment(model, embedding, prompts, body.multimask_output, body.load_logits_from_cache)

    sources = [] if body.image is None else [source_of(body.image)]
    results, answer = await service.alone(name, sources, work, prepare=_check)
    if body.format == "binary":
        return Response(await service.aside(_packed, results), media_type="application/octet-stream")
    written = await service.aside(_written, results, body.format)
    return Json({"predictions": written, "time": took(answer)})


def _name(version: str, model: str | None) -> str:
    return model or (version if "/" in version else f"sam2/{version}")


def _check(held: Held) -> None:
    if held.task not in ("interactive-segmentation", "video-segmentation"):
        raise AnswerError(400, f"{held.key!r} does {held.task}; this route is for interactive-segmentation")


def _prompts(given: PromptSet | list[Prompt] | Prompt) -> list[Prompt]:
    """Prompts of any of the three forms; none at all is one that points nowhere, as in the protocol."""
    found = given if isinstance(given, list) else [given] if isinstance(given, Prompt) else given.prompts
    return [prompt for prompt in found or () if prompt.points or prompt.box] or [Prompt()]


def _segment(model: Any, embedding: Any, prompts: Sequence[Prompt], several: bool, extend: bool) -> list[Any]:
    """The best mask of each prompt. Prompts of one form are decoded together: filling points up changes masks."""
    made: dict[int, Any] = {}
    forms: dict[tuple[bool, int], list[int]] = {}
    for i, prompt in enumerate(prompts):
        forms.setdefault((prompt.box is not None, len(prompt.points or ())), []).append(i)
    for (with_box, _), places in forms.items():
        found = model.segment_images(
            embeddings=embedding,
            **_arrays([prompts[i] for i in places], with_box),
            multi_mask_output=several,
            use_mask_input_cache=extend,
        )[0]
        made.update(zip(places, found.best, strict=True))
    return [made[i] for i in range(len(prompts))]


def _arrays(prompts: Sequence[Prompt], with_box: bool) -> dict[str, Any]:
    """Prompts of one form as arrays; a prompt of nothing is a point that does not count."""
    most = max(len(prompts[0].points or ()), 0 if with_box else 1)
    arrays: dict[str, Any] = {}
    if most:
        points = np.zeros((len(prompts), most, 2), np.float32)
        labels = np.full((len(prompts), most), -1, np.int64)
        for row, prompt in enumerate(prompts):
            for column, point in enumerate(prompt.points or ()):
                points[row, column] = point.x, point.y
                labels[row, column] = int(point.positive)
        arrays |= {"point_coordinates": points, "point_labels": labels}
    if with_box:
        boxes = [prompt.box for prompt in prompts if prompt.box is not None]
        arrays["boxes"] = np.array(
            [[b.x - b.width / 2, b.y - b.height / 2, b.x + b.width / 2, b.y + b.height / 2] for b in boxes], np.float32
        )
    return arrays


def _written(results: Sequence[Any], kind: str) -> list[dict[str, Any]]:
    if kind == "rle":
        return [
            {"masks": rle(result.masks)[0], "confidence": float(result.scores[0]), "format": "rle"}
            for result in results
        ]
    return [
        {
            "masks": [outline.tolist() for outline in result.masks.polygons()[0]],
            "confidence": float(result.scores[0]),
            "format": "polygon",
        }
        for result in results
    ]


def _packed(results: Sequence[Any]) -> bytes:
    buffer = io.BytesIO()
    masks = np.stack([result.masks.dense()[0] for result in results])
    np.savez_compressed(buffer, masks=masks, low_res_masks=np.stack([result.logits[0] for result in results]))
    return buffer.getvalue()
