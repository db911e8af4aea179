"""Descriptors: plain, hashable, checked when made."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys

import pytest

from lensmount.errors import LensmountError, OptionError
from lensmount.specs import (
    Architecture,
    Artifact,
    Backend,
    BackendStatus,
    BatchPolicy,
    CacheProvider,
    ModelCard,
    ModelPackage,
    Preprocess,
    Requirements,
    Source,
    to_dict,
)

ARTIFACT = Artifact(name="weights.onnx", uri="https://example.org/weights.onnx", size=3)


def package(**changes):
    return ModelPackage(**{"name": "onnx", "format": "onnx", "artifacts": (ARTIFACT,), **changes})


def card(**changes):
    given = {"id": "m", "architecture": "a", "task": "t", "packages": (package(),)}
    return ModelCard(**{**given, **changes})


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\b", "a/"])
def test_artifact_names_stay_in_the_folder(name):
    with pytest.raises(OptionError, match="artifact's name"):
        Artifact(name=name, uri="https://example.org/x")


def test_artifact_names_may_have_folders():
    assert Artifact(name="onnx/model.onnx", uri="hf://a/b/onnx/model.onnx").role == "graph"


@pytest.mark.parametrize("digest", ["", "0" * 63, "A" * 64, "0" * 64 + "\n", "g" * 64])
def test_hashes_are_checked(digest):
    with pytest.raises(OptionError, match="sha256"):
        Artifact(name="x", uri="u", sha256=digest)


def test_packages():
    assert package().size == 3
    assert package(artifacts=(ARTIFACT, Artifact(name="b", uri="u"))).size is None
    assert package(settings=(("fused_nms", True),)).setting("fused_nms") is True
    assert package().setting("fused_nms", "no") == "no"
    with pytest.raises(OptionError, match="package 'onnx'"):
        package(artifacts=())
    with pytest.raises(OptionError, match="package 'onnx'"):
        package(artifacts=(ARTIFACT, ARTIFACT))


@pytest.mark.parametrize("name", ["yolov8n-640", "sam2/hiera_tiny", "a", "A.b_c-d/1"])
def test_model_ids(name):
    assert card(id=name, aliases=(name + "x",)).id == name


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", ".hidden", "a b", "dist:id", "ü", "a\n", "-a"])
def test_wrong_model_ids(name):
    with pytest.raises(OptionError, match="model id"):
        card(id=name)
    with pytest.raises(OptionError, match="model id"):
        card(aliases=(name,))


def test_cards_have_distinct_packages():
    with pytest.raises(OptionError, match="card 'm'"):
        card(packages=(package(), package()))
    assert card(packages=()).packages == ()  # a card may announce a model that has no package yet


def test_architectures():
    made = Architecture(name="mine", tasks=("t",), factory="mine.model:build")
    assert made.network is None
    with pytest.raises(OptionError, match="architecture"):
        Architecture(name="Mine", tasks=("t",), factory="mine.model:build")
    with pytest.raises(OptionError, match="task"):
        Architecture(name="mine", tasks=(), factory="mine.model:build")


@pytest.mark.parametrize("string", ["mine.model", "mine:", ":build", "mine model:build", "mine.model:a.b", "a:b\n"])
def test_import_strings(string):
    with pytest.raises(OptionError, match="import string"):
        Architecture(name="mine", tasks=("t",), factory=string)
    with pytest.raises(OptionError, match="import string"):
        Architecture(name="mine", tasks=("t",), factory="a:b", recognise=string)
    with pytest.raises(OptionError, match="import string"):
        Backend(name="mine", formats=("onnx",), probe="a:b", opener=string)
    with pytest.raises(OptionError, match="import string"):
        Source(scheme="mine", finder=string)
    with pytest.raises(OptionError, match="import string"):
        CacheProvider(name="mine", factory=string)


ALL = [
    ARTIFACT,
    BatchPolicy(static=1),
    Preprocess(mean=(0.5,), std=(0.5,)),
    Requirements(devices=("cpu",)),
    package(settings=(("a", (1, 2)),)),
    card(classes=("a", "b")),
    Architecture(name="mine", tasks=("t",), factory="a:b"),
    Backend(name="mine", formats=("onnx",), probe="a:b", opener="a:b", preference=(("cuda", 30),)),
    BackendStatus(usable=True, devices=("cpu",), precisions=(("cpu", ("fp32",)),)),
    Source(scheme="s3", finder="a:b"),
    CacheProvider(name="redis", factory="a:b"),
]


@pytest.mark.parametrize("descriptor", ALL, ids=lambda d: type(d).__name__)
def test_descriptors_are_plain(descriptor):
    assert hash(descriptor) == hash(dataclasses.replace(descriptor))
    assert pickle.loads(pickle.dumps(descriptor)) == descriptor
    json.dumps(to_dict(descriptor))
    field = dataclasses.fields(descriptor)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(descriptor, field, None)


def test_batch_policies_read_well():
    assert str(BatchPolicy(static=4)) == "static 4"
    assert str(BatchPolicy(maximum=8)) == "dynamic up to 8"
    assert str(BatchPolicy()) == "dynamic"


def test_errors_of_descriptors_are_ours():
    with pytest.raises(LensmountError):
        card(id="")
    with pytest.raises(ValueError, match="model id"):
        card(id="")


def test_importing_descriptors_is_light():
    code = (
        "import sys, lensmount.specs;"
        "print([m for m in ('pydantic', 'numpy', 'torch', 'cv2', 'onnxruntime', 'packaging') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
