"""`POST /{project}/{version}`: the older form, with a bare base64 body, an uploaded file, or `?image=URL`."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lensmount_serve.answers import Json
from lensmount_serve.failures import AnswerError
from lensmount_serve.routes.infer import classify, detect, written
from lensmount_serve.routes.shared import FAILURES, Shared
from lensmount_serve.schemas import ClassificationBody, ImageField, KeypointsBody, SegmentationBody
from lensmount_serve.service import Answer, Service

router = APIRouter(tags=["inference"], default_response_class=Json, responses=FAILURES)

_WITHOUT_EFFECT = frozenset(
    [
        "api_key", "allow_reduced_mask_resolution", "disable_active_learning", "active_learning_target_dataset",
        "source", "source_info", "countinference", "service_secret", "disable_model_monitoring", "fix_batch_size",
        "enforce_dense_masks_in_inference_models",
    ]
)  # fmt: skip
_NUMBERS = frozenset(["confidence", "overlap", "keypoint_confidence", "tradeoff_factor"])
_COUNTS = frozenset(["max_detections", "max_candidates", "stroke"])
_FLAGS = frozenset(
    [
        "labels", "class_agnostic_nms", "include_anomaly_map", "disable_preproc_auto_orient",
        "disable_preproc_contrast", "disable_preproc_grayscale", "disable_preproc_static_crop",
    ]
)  # fmt: skip
_WORDS = frozenset(["format", "mask_decode_mode", "response_mask_format", "image", "classes", "image_type"])
_RENAMED = {"overlap": "iou_threshold", "labels": "visualization_labels", "stroke": "visualization_stroke_width"}
_BODY = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {"schema": {"type": "string"}, "example": "/9j/4AAQSkZJRg…"},
            "application/x-www-form-urlencoded": {"schema": {"type": "string"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    },
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": {"type": kind}}
        for kind, names in (
            ("number", sorted(_NUMBERS)),
            ("integer", sorted(_COUNTS)),
            ("boolean", sorted(_FLAGS)),
            ("string", sorted(_WORDS)),
        )
        for name in names
    ],
}


@router.post("/{project}/{version}", openapi_extra=_BODY)
async def legacy(project: str, version: str, request: Request, service: Shared) -> Response:
    """Runs a model of two words on one picture; `confidence` and `overlap` from 1 on are percent."""
    options = _options(request)
    kind = options.pop("format", "json")
    if kind not in ("json", "image", "image_and_json"):
        raise AnswerError(400, "format is json, image or image_and_json")
    name = f"{project}/{version}"
    service.pool.key_of(name)  # before the body is looked at
    image = await _image(request, options.pop("image", None), options.pop("image_type", None))
    options |= {"model_id": name, "image": image, "visualize_predictions": kind != "json"}
    answer, body, more = await _run(service, name, options)
    found = await service.aside(written, answer, body, more)
    if kind == "image":
        return Response(base64.b64decode(found["visualization"]), media_type="image/jpeg")
    return Json(found)


async def _run(service: Service, name: str, options: dict[str, Any]) -> tuple[Answer, Any, dict[str, Any]]:
    """Runs the model as its task is run on the newer routes."""
    async with service.pool.using(name, service.deadline()) as held:
        task = held.task
    if task == "classification":
        body: Any = _validated(ClassificationBody, options)
        confidence = body.confidence if isinstance(body.confidence, float) else None
        return await classify(service, body), body, {"confidence": confidence}
    if task == "keypoint-detection":
        body = _validated(KeypointsBody, options)
        found = await detect(service, body, (task,))
        return found, body, {"keypoint_confidence": body.keypoint_confidence or 0.0}
    body = _validated(SegmentationBody, options)
    found = await detect(service, body, ("object-detection", "instance-segmentation", "oriented-object-detection"))
    if task == "instance-segmentation":
        return found, body, {"masks": body.response_mask_format or "polygon"}
    return found, body, {"keep_none": False}


def _validated(kind: Any, options: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    try:
        return kind(**options)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:100]
        raise AnswerError(400, f"{place}: {first['msg']}") from error


def _options(request: Request) -> dict[str, Any]:
    """The query as fields of the newer bodies."""
    found: dict[str, Any] = {}
    for name, text in request.query_params.multi_items():
        if name in _WITHOUT_EFFECT:
            continue
        if name in _NUMBERS:
            value: Any = _number(name, text)
            value = value / 100 if name in ("confidence", "overlap") and value >= 1 else value
        elif name in _COUNTS:
            value = int(_number(name, text))
        elif name in _FLAGS:
            if text.lower() not in ("true", "false", "1", "0"):
                raise AnswerError(400, f"{name} is true or false")
            value = text.lower() in ("true", "1")
        elif name in _WORDS:
            value = text
        else:
            raise AnswerError(400, f"there is no parameter {name[:60]!r}")
        if name == "classes":
            found["class_filter"] = [word.strip() for word in text.split(",") if word.strip()] or None
        else:
            found[_RENAMED.get(name, name)] = value
    return found


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
        if abs(value) < 1e9:
            return value
    except ValueError:
        pass
    raise AnswerError(400, f"{name} is a number")


async def _image(request: Request, address: str | None, kind: str | None) -> ImageField:
    if kind not in (None, "base64", "url"):
        raise AnswerError(400, f"pictures of type {kind[:40]!r} are not taken here")
    if address is not None:
        return ImageField(type="url", value=address)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        data = await uploaded(request, "file")
    else:
        data = await request.body()
        if not data.strip():
            raise AnswerError(400, "there is no picture: send base64, a file, or ?image=URL")
        return ImageField(type="base64", value=data.decode("latin-1").strip().strip('"'))
    return ImageField(type="base64", value=base64.b64encode(data).decode())


async def uploaded(request: Request, name: str) -> bytes:
    """The bytes of an uploaded file.

    Raises:
        AnswerError: 400, where there is none.
    """
    async with request.form(max_files=1, max_fields=20) as form:
        part = form.get(name)
        if part is None or isinstance(part, str):
            raise AnswerError(400, f"there is no file {name!r} in the form")
        return await part.read()
