"""`/owlv2/infer`: what example boxes show; `/grounding_dino/infer`: what words say, where a model has that name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lensmount_serve.answers import Json
from lensmount_serve.failures import AnswerError
from lensmount_serve.pool import Held
from lensmount_serve.routes.shared import FAILURES, Shared, name_of, source_of, sources_of, texts_of, took
from lensmount_serve.schemas import GroundingBody, Owlv2Body
from lensmount_serve.service import Answer, Call, freeze
from lensmount_serve.wire import answer_of

router = APIRouter(tags=["inference"], default_response_class=Json, responses=FAILURES)


@router.post("/owlv2/infer")
async def owlv2(body: Owlv2Body, service: Shared) -> Json:
    """Finds what the example boxes of other pictures show."""
    name = body.model_id or "owlv2/" + body.owlv2_version_id.removeprefix("owlv2-").removeprefix("owlv2/")
    asked, examples = sources_of(body.image), [source_of(item.image) for item in body.training_data]
    boxes = [[box.model_dump() for box in item.boxes] for item in body.training_data]
    if sum(map(len, boxes)) > service.settings.max_prompts:
        raise AnswerError(400, f"a request has at most {service.settings.max_prompts} example boxes")
    confidence = 0.99 if body.confidence is None else body.confidence

    def work(model: Any, pictures: list[Any]) -> list[Any]:
        seen = pictures[len(asked) :]
        data = [{"image": image, "boxes": rows} for image, rows in zip(seen, boxes, strict=True)]
        found: list[Any] = model.infer(pictures[: len(asked)], data, confidence=confidence)
        return found

    results, answer = await service.alone(name, [*asked, *examples], work, prepare=_check)
    made = [
        answer_of(
            result,
            seconds=took(answer),
            inference_id=name_of(body.id),
            keep_none=False,
            image=picture if body.visualize_predictions else None,
            labels=bool(body.visualization_labels),
            stroke=body.visualization_stroke_width or 1,
        )
        for result, picture in zip(results, answer.pictures, strict=False)  # the examples follow
    ]
    return Json(made if isinstance(body.image, list) else made[0])


@router.post("/grounding_dino/infer")
async def grounding_dino(body: GroundingBody, service: Shared) -> Json:
    """Finds what words say, by a model that the operator named `grounding_dino/default`: none is there by itself."""
    if body.class_agnostic_nms:
        raise AnswerError(400, "class_agnostic_nms: models of words drop overlapping boxes of one class alone")
    texts = texts_of(body.text, service.settings.max_texts)
    # Models here give one score, of the box for its text: it has to reach both thresholds.
    lowest = max(0.5 if value is None else value for value in (body.box_threshold, body.text_threshold))
    call = Call(options=(("classes", freeze(texts)), ("confidence", lowest)))
    name = body.model_id or body.grounding_dino_version_id or "grounding_dino/default"
    answer = await service.predict(name, sources_of(body.image), lambda held: call, prepare=_check)
    made = _written(answer, body.id)
    return Json(made if isinstance(body.image, list) else made[0])


def _written(answer: Answer, inference_id: str | None) -> list[dict[str, Any]]:
    seconds, name = took(answer), name_of(inference_id)
    return [answer_of(result, seconds=seconds, inference_id=name, keep_none=False) for result in answer.results]


def _check(held: Held) -> None:
    if held.task != "open-vocabulary-detection":
        raise AnswerError(400, f"{held.key!r} does {held.task}; this route is for open-vocabulary-detection")
