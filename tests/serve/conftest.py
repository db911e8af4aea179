"""A server that tests share, its picture, and what direct calls of its model give."""

from __future__ import annotations

import base64

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from serving import SCENE, serving


@pytest.fixture(scope="session")
def scene():
    """The bundled picture's bytes."""
    return SCENE.read_bytes()


@pytest.fixture(scope="session")
def picture(scene):
    """It, as a field of a body."""
    return {"type": "base64", "value": base64.b64encode(scene).decode()}


@pytest.fixture(scope="session")
def server():
    """A server of shapes-nano that tests share; they leave it as it was."""
    with serving() as client:
        yield client


@pytest.fixture(scope="session")
def direct(scene):
    """What a call of the model gives for the bundled picture, by confidence."""
    from lensmount import registry

    with registry.load("shapes-nano") as model:
        yield lambda **options: model(scene, **options)[0]
