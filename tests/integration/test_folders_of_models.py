"""Every family from every form of a folder: one file, shards, a pickle; by path, from the hub, and as a bundle.

The networks are compared tensor by tensor with those of the plain folder.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

import sam2_tiny  # noqa: E402
from lensmount import registry  # noqa: E402
from lensmount.contracts import NetworkContext  # noqa: E402
from lensmount.errors import AmbiguousModelError, ModelFileError, UnsafeFileError  # noqa: E402
from lensmount.specs import import_string  # noqa: E402
from tiny_networks import lively, pyramid  # noqa: E402

TESTS = Path(__file__).resolve().parents[1]


def made_by(name):
    """The module of fixtures of a family's tests."""
    spec = importlib.util.spec_from_file_location(f"made_by_{name}", TESTS / name / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clip(goldens):
    tower = {"hidden_act": "gelu"}
    config = {
        "model_type": "clip",
        "text_config": {**tower, "num_attention_heads": 4},
        "vision_config": {**tower, "num_attention_heads": 6},
    }
    return goldens.recipe.weights(goldens.shapes["hf-gelu"]), {"config.json": config}


def perception_encoder(goldens):
    return goldens.recipe.weights(goldens.shapes["pe-timm"]), {}


def owlv2(goldens):
    made = made_by("owlv2")
    return made.random_state(0, made.SIZES), {"config.json": made.config_of(made.SIZES)}


def sam2(goldens):
    return sam2_tiny.weights(), {"config.json": sam2_tiny.config()}


def rfdetr(goldens):
    backbone = {"num_windows": 2, "out_indices": [1, 3]}
    return made_by("rfdetr").tensors(), {"config.json": {"model_type": "rf_detr", "backbone_config": backbone}}


def yolo(goldens):
    return {name: value.numpy() for name, value in lively(pyramid())[1].state_dict().items()}, {}


FAMILIES = (clip, perception_encoder, owlv2, sam2, rfdetr, yolo)


def save(state, path):
    if path.suffix == ".safetensors":
        safetensors.save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)


def shards(state, folder, stem, suffix, count=3):
    keys = sorted(state)
    names = [f"{stem}-{i + 1:05d}-of-{count:05d}{suffix}" for i in range(count)]
    for i, name in enumerate(names):
        save({key: state[key] for key in keys[i::count]}, folder / name)
    weight_map = {key: names[i % count] for i, key in enumerate(keys)}
    index = {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": weight_map}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))


def one(name, **beside):
    def write(state, folder):
        save(state, folder / name)
        for other, text in beside.items():
            (folder / other.replace("_yaml", ".yaml")).write_text(text)

    return write


FORMS = {
    "one file": one("model.safetensors"),
    "shards": lambda state, folder: shards(state, folder, "model", ".safetensors"),
    "pickle": one("pytorch_model.bin"),
    "pickled shards": lambda state, folder: shards(state, folder, "pytorch_model", ".bin"),
    "open_clip": one("open_clip_model.safetensors"),
    "open_clip's pickle": one("open_clip_pytorch_model.bin"),
    "an epoch": one("epoch_7.pt"),
    "a name and yaml": one("official_name_1.pt", official_yaml="model: x"),
}


def write(family, form, folder, goldens):
    arrays, beside = family(goldens)
    folder.mkdir()
    FORMS[form]({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, folder)
    for name, content in beside.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def networks(name):
    """The tensors of the networks that a name stands for."""
    card = registry.describe(name)
    (package,) = card.packages
    (fetched,) = registry.pull(name).values()
    build = import_string(registry.default().index.architectures[card.architecture].network, "it")
    built = build(NetworkContext(card=card, package=package, files=fetched.files, options=None))
    built = {"network": built} if not isinstance(built, dict) else built
    return {(part, key): t for part, net in built.items() for key, t in net.module.state_dict().items()}


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.fixture(scope="module")
def expected(tmp_path_factory, embedding_goldens):
    kept = {}

    def of(family):
        if family not in kept:
            folder = tmp_path_factory.mktemp("expected") / "plain"
            kept[family] = networks(write(family, "one file", folder, embedding_goldens))
            assert kept[family]
        return kept[family]

    return of


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_by_path_from_the_hub_and_as_a_bundle(family, form, hub, tmp_path, embedding_goldens, expected, request):
    folder = write(family, form, tmp_path / "my-model", embedding_goldens)
    assert same(networks(folder), expected(family))
    hub.put_repo("me/my-model", {path.name: path.read_bytes() for path in folder.iterdir()})
    hub.lists_files = form in ("an epoch", "a name and yaml")  # official names are found without a list of files
    assert same(networks("hf://me/my-model"), expected(family))
    bundle = tmp_path / "bundle"
    registry.pull("hf://me/my-model", to=bundle)
    for path in folder.iterdir():
        path.unlink()
    request.getfixturevalue("no_sockets")
    assert same(networks(bundle), expected(family))
    card = registry.describe("hf://me/my-model", offline=True)
    assert card.architecture == family.__name__
    if "shards" in form:
        assert sum("-of-" in artifact.name for artifact in card.packages[0].artifacts) == 3
    with registry.load(bundle, backend="torch", device="cpu") as model:
        assert model.card.architecture == family.__name__


# --- indexes that are wrong -------------------------------------------------------------------------------------------


def state():
    return {f"layer.{i}.weight": torch.full((2, 3), float(i)) for i in range(9)}


def index_of(folder, suffix=".safetensors"):
    (path,) = folder.glob("*.index.json")
    return path, json.loads(path.read_text())


def without_a_shard(folder, index, content):
    (folder / sorted(set(content["weight_map"].values()))[1]).unlink()
    return ModelFileError, "00002-of-00003"


def without_two_shards(folder, index, content):
    for name in sorted(set(content["weight_map"].values()))[1:]:
        (folder / name).unlink()
    return ModelFileError, "00002-of-00003.*00003-of-00003"


def with_a_tensor_that_is_not_there(folder, index, content):
    content["weight_map"]["layer.9.weight"] = content["weight_map"]["layer.0.weight"]
    return ModelFileError, "layer.9.weight"


def without_a_tensor_that_is_there(folder, index, content):
    del content["weight_map"]["layer.0.weight"]
    return ModelFileError, "layer.0.weight"


def with_a_tensor_in_another_shard(folder, index, content):
    content["weight_map"]["layer.0.weight"] = content["weight_map"]["layer.1.weight"]
    return ModelFileError, "layer.0.weight"


def with_a_tensor_in_two_shards(folder, index, content):
    name = content["weight_map"]["layer.1.weight"]
    held = {key: value for key, value in state().items() if content["weight_map"][key] == name}
    save({**held, "layer.0.weight": torch.ones(2, 3)}, folder / name)
    return ModelFileError, "lies in two shards"


def climbing(name):
    def change(folder, index, content):
        content["weight_map"]["layer.0.weight"] = name
        return UnsafeFileError, "is a path"

    return change


def pointing_to_itself(folder, index, content):
    content["weight_map"] = dict.fromkeys(content["weight_map"], index.name)
    return ModelFileError, "names no shards"


def empty(folder, index, content):
    content["weight_map"] = {}
    return ModelFileError, "names no shards"


def no_map(folder, index, content):
    content["weight_map"] = list(content["weight_map"])
    return ModelFileError, "no index of shards"


WRONG = (
    without_a_shard, without_two_shards, with_a_tensor_that_is_not_there, without_a_tensor_that_is_there,
    with_a_tensor_in_another_shard, with_a_tensor_in_two_shards, climbing("../x.safetensors"), climbing("/etc/passwd"),
    climbing("a/b.safetensors"), climbing("..\\x.safetensors"), pointing_to_itself, empty, no_map,
)  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_an_index_that_is_wrong(wrong, suffix, hub, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    shards(state(), folder, "model" if suffix == ".safetensors" else "pytorch_model", suffix)
    index, content = index_of(folder)
    kind, said = wrong(folder, index, content)
    index.write_text(json.dumps(content))
    for name in (folder, index):
        with pytest.raises(kind, match=f"(?s){said}"):
            registry.load(name)
    hub.put_repo("me/wrong", {path.name: path.read_bytes() for path in folder.iterdir()})
    for hub.lists_files in (True, False):
        with pytest.raises(kind, match=f"(?s){said}"):
            registry.load("hf://me/wrong")


# --- folders of which nobody can say what the model is ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "kind", "said"),
    [
        (("epoch_1.pt", "epoch_2.pt"), AmbiguousModelError, ("epoch_1.pt", "epoch_2.pt", "name one")),
        (("best.pt", "best.onnx"), AmbiguousModelError, ("best.pt", "best.onnx")),
        (("a.onnx", "b.onnx"), AmbiguousModelError, ("several graphs", "a.onnx", "b.onnx")),
        (("config.json", "README.md"), ModelFileError, ("no model file", "README.md", "model.safetensors")),
        (("optimizer.pt", "training_args.bin"), ModelFileError, ("optimizer.pt",)),
        (("model-00001-of-00002.safetensors",), ModelFileError, ("without an index", "model-00001-of-00002")),
    ],
)
def test_a_refusal_lists_what_was_found(names, kind, said, hub, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    hub.put_repo("me/m", dict.fromkeys(names, b"x"))
    for subject in (folder, "hf://me/m"):
        with pytest.raises(kind) as caught:
            registry.load(subject if subject == "hf://me/m" else Path(subject))
        for part in said:
            assert part in str(caught.value)


def test_what_a_trainer_saves_beside_the_model_is_no_model(tmp_path, embedding_goldens):
    folder = write(perception_encoder, "an epoch", tmp_path / "m", embedding_goldens)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
        (folder / name).write_bytes(b"x")
    assert registry.describe(folder).architecture == "perception_encoder"


def test_the_one_model_of_a_repository_may_lie_deeper(hub, tmp_path, embedding_goldens):
    folder = write(clip, "one file", tmp_path / "m", embedding_goldens)
    hub.put_repo("me/deep", {f"weights/{path.name}": path.read_bytes() for path in folder.iterdir()})
    artifacts = registry.describe("hf://me/deep").packages[0].artifacts
    assert [a.uri for a in artifacts] == [
        f"hf://me/deep@{'a' * 40}/weights/{name}" for name in ("model.safetensors", "config.json")
    ]
