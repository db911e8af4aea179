"""`/v1/…`: lensmount's own routes. One for every task, with lensmount's words and its results as they are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, ValidationError

from lensmount_serve.answers import Json
from lensmount_serve.failures import AnswerError
from lensmount_serve.pictures import Source
from lensmount_serve.pool import Held
from lensmount_serve.routes.shared import FAILURES, Shared
from lensmount_serve.schemas import Body, Fraction, Number
from lensmount_serve.service import Answer, Call, Service, freeze

_PROBLEM = {"application/problem+json": {"example": {"type": "about:blank", "title": "Not Found", "status": 404,
                                                     "detail": "there is no model 'x' here"}}}  # fmt: skip
_FAILURES = {status: {**text, "content": _PROBLEM} for status, text in FAILURES.items()}
router = APIRouter(prefix="/v1", tags=["lensmount"], default_response_class=Json, responses=_FAILURES)

_MASKS = ("interactive-segmentation", "video-segmentation")
_PROMPTS = frozenset(["points", "point_labels", "boxes", "multi_mask_output"])
_DETECTION = frozenset(["confidence", "iou_threshold", "max_detections", "class_agnostic", "classes"])


class Options(Body):
    """What a model is asked; what its task has no use for is refused."""

    confidence: Fraction | None = None
    iou_threshold: Fraction | None = None
    max_detections: Annotated[int, Field(ge=1, le=100_000)] | None = None
    class_agnostic: bool | None = None
    classes: list[Annotated[str, Field(max_length=2000)] | int] | None = None
    points: list[tuple[Number, Number]] | None = None
    point_labels: list[Annotated[int, Field(ge=-1, le=1)]] | None = None
    boxes: list[tuple[Number, Number, Number, Number]] | None = None
    multi_mask_output: bool | None = None


class PredictBody(Options):
    """A picture, as base64 or a `data:` address, and options."""

    image: str
    api_key: str | None = None


def _content() -> dict[str, Any]:
    fields = PredictBody.model_json_schema(ref_template="#/components/schemas/{model}")
    options = Options.model_json_schema(ref_template="#/components/schemas/{model}")
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": fields,
                    "examples": {
                        "objects": {"value": {"image": "/9j/4AAQSkZJRg…", "confidence": 0.5}},
                        "words": {"value": {"image": "/9j/4AAQSkZJRg…", "classes": ["a red cup", "a spoon"]}},
                        "clicks": {"value": {"image": "/9j/4AAQSkZJRg…", "points": [[100, 80]], "point_labels": [1]}},
                    },
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {"image": {"type": "string", "format": "binary"}, "options": options},
                    }
                },
            },
        }
    }


@router.get("/models")
async def models(service: Shared) -> Json:
    """Models that may be asked for, those that are loaded first."""
    rows = [{"id": name, "task": task, "loaded": loaded} for name, task, loaded in service.pool.loadable()]
    return Json({"models": rows})


@router.post(
    "/predict/{model:path}",
    openapi_extra=_content(),
    responses={
        200: {
            "description": "The result, as `lensmount_vision.results.from_dict` reads it.",
            "content": {
                "application/json": {
                    "example": {
                        "model": "shapes-nano", "task": "instance-segmentation", "image": {"width": 960, "height": 640},
                        "seconds": {"decode": 0.006, "wait": 0.0, "run": 0.012},
                        "result": {"type": "instance-segmentation", "image_size": [640, 960], "objects": []},
                    }
                }
            },
        }
    },
)  # fmt: skip
async def predict(model: str, request: Request, service: Shared) -> Json:
    """Runs a model on one picture.

    Detectors take `confidence`, `iou_threshold`, `max_detections`, `class_agnostic` and `classes`; models of words take
    the words as `classes`; SAM 2 takes `points` with `point_labels` (1 on the object, 0 off it) or `boxes` (x1, y1, x2,
    y2), in pixels of the picture; embedding models give a vector, or compare with `classes`.
    """
    service.pool.key_of(model)
    source, options = await _asked(request)
    answer = await _run(service, model, source, options)
    found = await service.aside(answer.results[0].to_dict)
    found.pop("path", None)
    picture = answer.pictures[0]
    return Json(
        {
            "model": answer.held.key,
            "task": answer.held.task,
            "image": {"width": picture.width, "height": picture.height},
            "seconds": dict(answer.seconds),
            "result": found,
        }
    )


async def _asked(request: Request) -> tuple[Source, Options]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            async with request.form(max_files=1, max_fields=5) as form:
                part, more = form.get("image"), form.get("options", "{}")
                if part is None or isinstance(part, str) or not isinstance(more, str):
                    raise AnswerError(400, "the form has a file 'image' and, if anything, a text 'options' of JSON")
                unknown = set(form) - {"image", "options", "api_key"}
                if unknown:
                    raise AnswerError(400, f"the form has no field {min(unknown)[:60]!r}")
                return Source("bytes", await part.read()), Options.model_validate_json(more)
        body = PredictBody.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:100]
        raise AnswerError(400, f"{place}: {first['msg']}" if place else str(first["msg"])) from error
    values = body.model_dump(exclude={"image", "api_key"}, exclude_unset=True)
    return Source("base64", body.image), Options(**values)


async def _run(service: Service, name: str, source: Source, options: Options) -> Answer:
    given = {key: value for key, value in options.model_dump().items() if value is not None}
    counted = len(given.get("points", ())) + len(given.get("boxes", ()))
    if counted > service.settings.max_prompts:
        raise AnswerError(400, f"a request has at most {service.settings.max_prompts} points and boxes")
    if len(given.get("classes", ())) > service.settings.max_texts:
        raise AnswerError(400, f"a request has at most {service.settings.max_texts} classes")
    return await service.predict(name, [source], lambda held: _call(held, given), prepare=lambda held: None)


def _call(held: Held, given: dict[str, Any]) -> Call:
    """How the model is called, by its task.

    Raises:
        AnswerError: 400, for options that the task has no use for.
    """
    if held.task in _MASKS:
        _only(held, given, _PROMPTS)
        wanted = {"multi_mask_output": given.get("multi_mask_output", True)}
        if "points" in given:
            wanted |= {"point_coordinates": [list(point) for point in given["points"]]}
        if "point_labels" in given:
            wanted["point_labels"] = given["point_labels"]
        if "boxes" in given:
            boxes = [list(box) for box in given["boxes"]]
            wanted["boxes"] = boxes[0] if "points" in given and len(boxes) == 1 else boxes
        return Call("segment_images", tuple((key, freeze(value)) for key, value in wanted.items()), shared=False)
    if held.task == "embedding":
        _only(held, given, frozenset(["classes"]))
        if "classes" in given:
            return Call("classify", (("labels", freeze([str(item) for item in given["classes"]])),))
        return Call("embed_images")
    _only(held, given, _DETECTION)
    return Call(options=tuple((key, freeze(value)) for key, value in given.items()))


def _only(held: Held, given: dict[str, Any], allowed: frozenset[str]) -> None:
    if unknown := set(given) - allowed:
        said = ", ".join(sorted(allowed))
        raise AnswerError(400, f"a model of {held.task} has no option {min(unknown)!r}; it has {said}")
