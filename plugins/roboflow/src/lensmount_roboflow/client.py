"""Talking to the provider: pages of metadata, its statuses in words, its answer kept for days without a network."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from lensmount.contracts import FetchOptions
from lensmount.errors import ArtifactNotFoundError, AuthenticationError, ModelFileError, SourceError
from lensmount.store import Store, read_small
from lensmount_roboflow.packages.schema import decode_json, parse
from lensmount_roboflow.wire import METADATA, Metadata

DEFAULT_HOST = "https://api.roboflow.com"
MAX_PAGES = 1000
KEY = "set ROBOFLOW_API_KEY to a key of your workspace, or pass FetchOptions(credentials={'roboflow': key})"


def host() -> str:
    """`ROBOFLOW_API_HOST`, or the provider's own."""
    return (os.environ.get("ROBOFLOW_API_HOST") or DEFAULT_HOST).rstrip("/")


def key_from(options: FetchOptions) -> str | None:
    """The key: from the options, else from the environment."""
    return options.credentials.get("roboflow") or os.environ.get("ROBOFLOW_API_KEY") or None


def ask(model: str, options: FetchOptions, store: Store) -> list[Metadata]:
    """All pages of what the provider says of a model; kept in the store without its signed addresses.

    Raises:
        AuthenticationError: 401, 402, 403, 423.
        ArtifactNotFoundError: The provider does not know the model.
        SourceError: Out of reach, out of order, plain http without `allow_insecure`, or an answer of another form.
    """
    server = host()
    if urlsplit(server).scheme != "https" and not options.allow_insecure:
        raise SourceError(
            f"the host {server} is plain http: your key could be read on the way",
            expected="https",
            fix="set ROBOFLOW_API_HOST to an https address, or FetchOptions(allow_insecure=True)",
        )
    key = key_from(options)
    headers = {"Accept": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    raw: list[Any] = []
    pages: list[Metadata] = []
    after: str | None = None
    seen: set[str] = set()
    while True:
        query = {"modelId": model, **({"startAfter": after} if after else {})}
        url = f"{server}/models/v1/external/weights?{urlencode(query, quote_via=quote)}"
        content = read_small(url, headers, store.policy, translate=lambda *answer: _refusal(model, key, *answer))
        data = _metadata(content, model)
        pages.append(parse(Metadata, data, f"the provider's answer on {model!r}"))
        raw.append(data)
        after = pages[-1].next_page
        if not after:
            break
        if after in seen or len(pages) >= MAX_PAGES:
            raise SourceError(f"the provider's pages on {model!r} do not end", found=f"{len(pages)} pages")
        seen.add(after)
    _keep(model, raw, store)
    return pages


def _metadata(content: bytes, model: str) -> Any:
    answer = decode_json(content, f"the provider's answer on {model!r}")
    if isinstance(answer, dict) and "error" in answer:  # status 200, for endpoints that the host does not have
        raise SourceError(
            f"{host()} has no weights endpoint",
            found=str(answer["error"])[:200],
            fix="check ROBOFLOW_API_HOST",
        )
    data = answer.get("modelMetadata") if isinstance(answer, dict) else None
    if not isinstance(data, dict) or data.get("type") != METADATA:
        found = data.get("type") if isinstance(data, dict) else type(answer).__name__
        raise ModelFileError(
            f"the provider's answer on {model!r} is of another form",
            found=repr(found)[:80],
            expected=METADATA,
            fix="pip install -U lensmount-roboflow",
        )
    return data


def _refusal(model: str, key: str | None, status: int, reason: str, body: str) -> SourceError | None:
    found = f"status {status} {reason}: {_message(body, key)}".strip(" :")
    if status == 401:
        problem = "Roboflow does not accept the key" if key else f"Roboflow wants a key for {model!r}"
        return AuthenticationError(problem, found=found, fix=KEY)
    if status == 402:
        return AuthenticationError(
            "the Roboflow workspace has no credits left", found=found, fix="see the workspace's plan and usage"
        )
    if status == 403:
        return AuthenticationError(
            f"the key has no right to {model!r}", found=found, fix=f"use a key with the scope for it: {KEY}"
        )
    if status == 404:
        return ArtifactNotFoundError(
            f"Roboflow knows no model {model!r}",
            found=found,
            expected="roboflow://project/version, as on the model's page",
            fix=f"check the name; for a private model, {KEY}",
        )
    if status == 423:
        return AuthenticationError(
            "usage of the Roboflow workspace is paused", found=found, fix="see the workspace's billing page"
        )
    if 400 <= status < 500 and status not in (408, 429):
        return SourceError(
            f"Roboflow refuses the request for {model!r}",
            found=found,
            fix="check the model's id and version on its page",
        )
    return None


def _message(body: str, key: str | None) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        return ""
    text = ""
    if isinstance(answer, dict):
        error = answer.get("error", answer.get("message", ""))
        text = str(error.get("message", "") if isinstance(error, dict) else error)[:200]
    return text.replace(key, "***") if key else text


def _keep(model: str, raw: list[Any], store: Store) -> None:
    kept = [{**page, "modelPackages": [_unsigned(p) for p in page.get("modelPackages", [])]} for page in raw]
    store.keep_answer("roboflow", _subject(model), json.dumps({"model": model, "pages": kept}, indent=1).encode())


def _subject(model: str) -> str:
    return f"{host()} {model}"


def _unsigned(package: Any) -> Any:
    if not isinstance(package, dict) or not isinstance(package.get("packageFiles"), list):
        return package
    files = [
        {k: v for k, v in f.items() if k != "downloadUrl"} if isinstance(f, dict) else f
        for f in package["packageFiles"]
    ]
    return {**package, "packageFiles": files}


def kept(model: str, store: Store) -> list[Metadata] | None:
    """What the provider last said of a model, or None when it was never asked."""
    answer = store.kept_answer("roboflow", _subject(model))
    if answer is None:
        return None
    try:
        return [parse(Metadata, page, "the kept answer") for page in json.loads(answer)["pages"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
