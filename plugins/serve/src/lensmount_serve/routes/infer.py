"""`/infer/…`: boxes, masks, keypoints and classes, in the protocol's words."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lensmount.errors import OptionError
from lensmount.specs import Preprocess
from lensmount_serve.answers import Json
from lensmount_serve.failures import AnswerError
from lensmount_serve.pool import Held
from lensmount_serve.routes.shared import FAILURES, Shared, name_of, sources_of, took
from lensmount_serve.schemas import ClassificationBody, DetectionBody, InferBody, KeypointsBody, SegmentationBody
from lensmount_serve.service import Answer, Call, Service, known_options
from lensmount_serve.wire import answer_of

router = APIRouter(tags=["inference"], default_response_class=Json, responses=FAILURES)
_DETECTORS = ("object-detection", "instance-segmentation", "keypoint-detection", "oriented-object-detection")


@router.post("/infer/object_detection")
async def object_detection(body: DetectionBody, service: Shared) -> Json:
    """Boxes; of a model that finds more, its boxes."""
    answer = await detect(service, body, _DETECTORS)
    return Json(await service.aside(written, answer, body, {"keep_none": False}))


@router.post("/infer/instance_segmentation")
async def instance_segmentation(body: SegmentationBody, service: Shared) -> Json:
    """Masks, as polygons or run lengths."""
    answer = await detect(service, body, ("instance-segmentation",))
    return Json(await service.aside(written, answer, body, {"masks": body.response_mask_format or "polygon"}))


@router.post("/infer/keypoints_detection")
async def keypoints_detection(body: KeypointsBody, service: Shared) -> Json:
    """Keypoints."""
    answer = await detect(service, body, ("keypoint-detection",))
    return Json(await service.aside(written, answer, body, {"keypoint_confidence": body.keypoint_confidence or 0.0}))


@router.post("/infer/classification")
async def classification(body: ClassificationBody, service: Shared) -> Json:
    """Classes, best first."""
    answer = await classify(service, body)
    return Json(await service.aside(written, answer, body, {"confidence": number_of(body.confidence)}))


async def detect(service: Service, body: DetectionBody, tasks: tuple[str, ...]) -> Answer:
    """Runs a detector on a body's pictures."""
    if body.max_candidates not in (None, service.settings.max_candidates):
        raise AnswerError(
            400,
            f"max_candidates is {service.settings.max_candidates} for every request to this server; "
            f"this one says {body.max_candidates}",
        )

    def call(held: Held) -> Call:
        wanted = {
            "confidence": number_of(body.confidence),
            "classes": None if body.class_filter is None else tuple(body.class_filter),
            "iou_threshold": body.iou_threshold,
            "class_agnostic": body.class_agnostic_nms,
            "max_detections": body.max_detections,
        }
        known = known_options(held.model)
        # Networks whose queries exclude each other have no suppression: neither of its settings changes their answer.
        lacking = {"iou_threshold", "class_agnostic"} - set(known)
        given = {name: value for name, value in wanted.items() if value is not None and name not in lacking}
        return Call(options=tuple(given.items()))

    return await service.predict(
        body.model_id,
        sources_of(body.image, oriented=not body.disable_preproc_auto_orient),
        call,
        prepare=lambda held: _check(held, body, tasks),
    )


async def classify(service: Service, body: InferBody) -> Answer:
    """Runs a classifier on a body's pictures."""
    if body.class_filter:
        raise AnswerError(400, "class_filter has no meaning for classification: all classes are answered")
    return await service.predict(
        body.model_id,
        sources_of(body.image, oriented=not body.disable_preproc_auto_orient),
        lambda held: Call(),
        prepare=lambda held: _check(held, body, ("classification",)),
    )


def number_of(confidence: float | str | None) -> float | None:
    """A threshold; None for what the model's package recommends."""
    return None if isinstance(confidence, str) else confidence


def written(answer: Answer, body: InferBody, more: dict[str, Any]) -> Any:
    """One object, or a list where the body has a list."""
    seconds, name = took(answer), name_of(body.id)
    made = [
        answer_of(
            result,
            seconds=seconds,
            inference_id=name,
            image=picture if body.visualize_predictions else None,
            labels=bool(body.visualization_labels),
            stroke=body.visualization_stroke_width or 1,
            **more,
        )
        for result, picture in zip(answer.results, answer.pictures, strict=True)
    ]
    return made if isinstance(body.image, list) else made[0]


def _check(held: Held, body: InferBody, tasks: tuple[str, ...]) -> None:
    """Refuses a model of another task, and preparations that cannot be left out."""
    if held.task not in tasks:
        raise AnswerError(400, f"{body.model_id[:100]!r} does {held.task}; this route is for {', '.join(tasks)}")
    if body.include_anomaly_map:
        raise AnswerError(400, "no model here makes anomaly maps")
    spec: Preprocess | None = getattr(held.model, "preprocess_spec", None)
    for name in ("contrast", "grayscale", "static_crop"):
        if getattr(body, f"disable_preproc_{name}") and getattr(spec, name, None):
            raise OptionError(
                f"disable_preproc_{name}: this model's package asks for it, and its weights were trained so",
                expected="leave it out, or load a package without it",
            )
