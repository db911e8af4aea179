"""`/clip/…` and `/perception_encoder/…`: vectors of pictures and texts, not normalised, and their cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from lensmount_serve.answers import Json
from lensmount_serve.failures import AnswerError
from lensmount_serve.pool import Held
from lensmount_serve.routes.shared import FAILURES, Shared, name_of, source_of, sources_of, texts_of, took
from lensmount_serve.schemas import (
    ClipImageBody,
    ClipTextBody,
    CompareBody,
    ImageField,
    PerceptionImageBody,
    PerceptionTextBody,
)
from lensmount_serve.service import Call, Service

router = APIRouter(tags=["embeddings"], default_response_class=Json, responses=FAILURES)
_CLIP, _PERCEPTION = "clip/", "perception-encoder/"
_MOST_OF_CLIP = 8  # the protocol's limit on pictures and texts
_RAW = Call("embed_images", (("normalize", False),))


@router.post("/clip/embed_image")
async def clip_image(body: ClipImageBody, service: Shared) -> Json:
    """Vectors of pictures."""
    return await _embed_images(service, _name(_CLIP, body.clip_version_id, body.model_id), body.image, body.id)


@router.post("/clip/embed_text")
async def clip_text(body: ClipTextBody, service: Shared) -> Json:
    """Vectors of texts."""
    return await _embed_texts(service, _name(_CLIP, body.clip_version_id, body.model_id), body.text, body.id)


@router.post("/clip/compare")
async def clip_compare(body: CompareBody, service: Shared) -> Json:
    """Cosines of a subject and prompts."""
    return await _compare(service, _name(_CLIP, body.clip_version_id, body.model_id), body)


@router.post("/perception_encoder/embed_image")
async def perception_image(body: PerceptionImageBody, service: Shared) -> Json:
    """Vectors of pictures."""
    name = _name(_PERCEPTION, body.perception_encoder_version_id, body.model_id)
    return await _embed_images(service, name, body.image, body.id)


@router.post("/perception_encoder/embed_text")
async def perception_text(body: PerceptionTextBody, service: Shared) -> Json:
    """Vectors of texts."""
    name = _name(_PERCEPTION, body.perception_encoder_version_id, body.model_id)
    return await _embed_texts(service, name, body.text, body.id)


@router.post("/perception_encoder/compare")
async def perception_compare(body: CompareBody, service: Shared) -> Json:
    """Cosines of a subject and prompts."""
    return await _compare(service, _name(_PERCEPTION, body.perception_encoder_version_id, body.model_id), body)


def _name(family: str, version: str | None, model: str | None) -> str:
    if model is not None:
        return model
    if version is None:
        raise AnswerError(400, "the version of the model is null")
    return version if version.startswith(family) else family + version


def _check(held: Held) -> None:
    if held.task != "embedding":
        raise AnswerError(400, f"{held.key!r} does {held.task}; this route is for embeddings")


async def _embed_images(
    service: Service, name: str, image: ImageField | list[ImageField], inference_id: str | None
) -> Json:
    sources = sources_of(image)
    if len(sources) > _MOST_OF_CLIP:
        raise AnswerError(400, f"a request has at most {_MOST_OF_CLIP} pictures; this one {len(sources)}")
    answer = await service.predict(name, sources, lambda held: _RAW, prepare=_check)
    return _vectors([result.vectors[0].tolist() for result in answer.results], took(answer), inference_id)


async def _embed_texts(service: Service, name: str, text: str | list[str], inference_id: str | None) -> Json:
    texts = texts_of(text, service.settings.max_texts)
    found, answer = await service.alone(
        name, (), lambda model, _: model.embed_text(texts, normalize=False).vectors.tolist(), prepare=_check
    )
    return _vectors(found, took(answer), inference_id)


def _vectors(rows: list[Any], seconds: float, inference_id: str | None) -> Json:
    # The client reads `frame_id` and `time` by key: they are there, whatever their value.
    return Json({"inference_id": name_of(inference_id), "frame_id": None, "time": seconds, "embeddings": rows})


async def _compare(service: Service, name: str, body: CompareBody) -> Json:
    keys: list[str] | None = None
    if isinstance(body.prompt, dict):
        keys, prompts = list(body.prompt), list(body.prompt.values())
    else:
        prompts = body.prompt if isinstance(body.prompt, list) else [body.prompt]
    if not 0 < len(prompts) <= min(service.settings.max_texts, service.settings.max_images):
        raise AnswerError(400, "a comparison has 1 to 16 prompts")
    subjects = [body.subject]
    images = [
        *(_pictures(subjects) if body.subject_type == "image" else ()),
        *(_pictures(prompts) if body.prompt_type == "image" else ()),
    ]
    words = [_texts(side, kind) for side, kind in ((subjects, body.subject_type), (prompts, body.prompt_type))]

    def work(model: Any, pictures: list[Any]) -> list[float]:
        left = list(pictures)
        sides = []
        for texts, count in zip(words, (1, len(prompts)), strict=True):
            if texts is not None:
                sides.append(model.embed_text(texts))
                continue
            sides.append(model.embed_images(left[:count]))
            del left[:count]
        cosines: list[float] = sides[0].similarity(sides[1])[0].tolist()
        return cosines

    found, answer = await service.alone(name, [source_of(image) for image in images], work, prepare=_check)
    similarity = found if keys is None else dict(zip(keys, found, strict=True))
    return Json({"inference_id": name_of(body.id), "frame_id": None, "time": took(answer), "similarity": similarity})


def _pictures(side: Sequence[ImageField | str]) -> list[ImageField]:
    if any(isinstance(item, str) for item in side):
        raise AnswerError(400, "a text stands where the type says image")
    return [item for item in side if isinstance(item, ImageField)]


def _texts(side: Sequence[ImageField | str], kind: str) -> list[str] | None:
    """Texts of one side; None where that is pictures."""
    if kind == "image":
        return None
    if any(not isinstance(item, str) for item in side):
        raise AnswerError(400, "a picture stands where the type says text")
    return texts_of([item for item in side if isinstance(item, str)], len(side))
