"""What routes share: the service of a request, its name, its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, Request

from lensmount_serve.failures import AnswerError
from lensmount_serve.pictures import Source
from lensmount_serve.schemas import ImageField
from lensmount_serve.service import Answer, Service


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


Shared = Annotated[Service, Depends(_service)]

#: What any route may answer beside its results, for the description.
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong; the message says what."},
    401: {"description": "The key is missing or wrong."},
    403: {"description": "A page of another site, or another host's name."},
    404: {"description": "No such model."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body is too large."},
    429: {"description": "Too many requests wait; Retry-After says when to come back."},
    501: {"description": "The model cannot run here."},
    502: {"description": "The model's files cannot be had."},
    503: {"description": "The model is being loaded; Retry-After says when to come back."},
    504: {"description": "No answer within the time limit."},
    507: {"description": "The device is out of memory."},
}


def name_of(given: str | None) -> str:
    """The name of an inference: the client's, or a new one."""
    return given or str(uuid4())


def source_of(image: ImageField, oriented: bool = True) -> Source:
    """A picture of a body.

    Raises:
        AnswerError: 400, where its value is no text.
    """
    kind = image.type.lower()
    if not isinstance(image.value, str) and kind != "numpy":
        raise AnswerError(400, "a picture's value is a text")
    return Source(kind, image.value if isinstance(image.value, str) else "", oriented)


def sources_of(image: ImageField | Sequence[ImageField], oriented: bool = True) -> list[Source]:
    """Pictures of a body, of one or several.

    Raises:
        AnswerError: 400, where there is none.
    """
    found = [source_of(item, oriented) for item in ([image] if isinstance(image, ImageField) else image)]
    if not found:
        raise AnswerError(400, "there is no picture")
    return found


def texts_of(text: str | Sequence[str], most: int) -> list[str]:
    """Texts of a body.

    Raises:
        AnswerError: 400, for none, too many, or too long ones.
    """
    found = [text] if isinstance(text, str) else list(text)
    if not 0 < len(found) <= most:
        raise AnswerError(400, f"a request has 1 to {most} texts; this one {len(found)}")
    if any(len(item) > 2000 for item in found):
        raise AnswerError(400, "a text has at most 2000 characters")
    return found


def took(answer: Answer) -> float:
    """Seconds that a model worked for a request."""
    return float(answer.seconds["run"])
