"""Answers: JSON that any string survives, failures as the protocol or as RFC 9457 writes them."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi.responses import Response

from lensmount_serve.failures import AnswerError

OWN = "/v1/"  # below it, failures are `application/problem+json`


class Json(Response):
    """JSON in ASCII: names out of a model's file may hold what UTF-8 cannot encode."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encodes."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def failed(failure: AnswerError, path: str) -> Response:
    """A failure as the route's family writes it."""
    headers = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
    if failure.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if path.startswith(OWN):
        title = HTTPStatus(failure.status).phrase
        problem = {"type": "about:blank", "title": title, "status": failure.status, "detail": failure.message}
        made: Response = Json(problem, failure.status, headers)
        made.headers["content-type"] = "application/problem+json"
        return made
    return Json({"message": failure.message}, failure.status, headers)
