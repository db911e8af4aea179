"""What is fuzzed: functions of bytes that use lensmount as its users do, and let nothing but `LensmountError` pass.

A target returns whether the input was taken; any other exception, a wrong answer (an assertion here), too much time or
memory is a finding. Modules are imported at the top, so that the engine can instrument them.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fuzz_mutators as mutators
import lensmount.caches.serial
import lensmount.store.addresses
import lensmount.store.local
import lensmount.store.lock
import lensmount.store.manifests
import lensmount.store.package
import lensmount_mediapipe.conversion
import lensmount_mediapipe.recognise
import lensmount_reading.archive
import lensmount_reading.checkpoint
import lensmount_reading.convert
import lensmount_reading.external_data
import lensmount_reading.inspection
import lensmount_reading.legacy
import lensmount_reading.mapped
import lensmount_reading.modules
import lensmount_reading.onnx_file
import lensmount_reading.pickles
import lensmount_reading.safetensors_file
import lensmount_roboflow.client
import lensmount_roboflow.mapping
import lensmount_roboflow.packages.config
import lensmount_roboflow.packages.folder
import lensmount_roboflow.packages.schema
import lensmount_vision.images.decoding
import lensmount_vision.images.headers
import lensmount_vision.images.loading
import lensmount_vision.images.sources
import lensmount_yolo.checkpoint
import lensmount_yolo.metadata
import lensmount_yolo.recognise
from lensmount.errors import LensmountError, ModelFileError
from lensmount.specs import Artifact, ModelCard, to_dict
from lensmount_reading.facts import FileFacts, GraphValue
from lensmount_reading.inspection import inspect_file
from lensmount_reading.records import Record

MAX_PIXELS = 1 << 22
LARGEST = 1 << 22  # bytes of a tensor that is turned into an array

FOLDER = Path(tempfile.mkdtemp(prefix="lensmount-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, True)


@dataclass(frozen=True)
class Target:
    """One target: what it runs, how its inputs are damaged, and words that its inputs are made of."""

    run: Callable[[bytes], bool]
    mutate: mutators.Mutator = mutators.mutate_bytes
    words: tuple[bytes, ...] = ()


class NoInputError(Exception):
    """The bytes are not of the form that the target's own harness reads; lensmount saw nothing of them."""


def place(name: str, content: bytes) -> Path:
    """Writes a file of the fuzzing folder."""
    path = FOLDER / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


# --- model files ------------------------------------------------------------------------------------------------------


def checkpoint(data: bytes) -> bool:
    """Looks at a file, reads its tensors, and writes them as safetensors, which must give the same tensors."""
    path = place("model", data)
    try:
        facts = inspect_file(path)
    except ModelFileError:
        return False
    assert facts.summary().isprintable()
    _ = facts.precision
    if facts.error is None:
        lensmount_yolo.recognise.recognise(facts)
    read = lensmount_reading.checkpoint.read_checkpoint(path, modules="records")
    for tensor in read.tensors.values():
        if tensor.nbytes < LARGEST:
            assert tensor.numpy().shape == tuple(tensor.shape)
    tree = read.tree
    if isinstance(tree, dict) and isinstance(tree.get("model"), Record):
        lensmount_reading.modules.module_state_dict(tree["model"])
    if sum(tensor.nbytes for tensor in read.tensors.values()) < LARGEST:
        written = FOLDER / "converted.safetensors"
        lensmount_reading.convert.to_safetensors(read, written)
        again = lensmount_reading.checkpoint.read_checkpoint(written)
        assert set(again.tensors) == set(read.tensors)
        for name, tensor in again.tensors.items():
            old = read.tensors[name].numpy()
            assert tensor.dtype == read.tensors[name].dtype
            assert np.ascontiguousarray(old).tobytes() == tensor.numpy().tobytes(), name
    return True


def pickle(data: bytes) -> bool:
    """The same with the pickle inside a sound archive, and by itself under each policy."""
    for policy in ("plain", "modules", "script"):
        scan = lensmount_reading.pickles.scan_pickle(data, where="x", policy=policy)
        assert scan.problem is None or isinstance(scan.problem, ModelFileError)
    path = FOLDER / "model"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", data)
        for key in range(10):
            archive.writestr(f"m/data/{key}", bytes(64))
        archive.writestr("m/version", b"3\n")
        archive.writestr("m/byteorder", b"little")
    return checkpoint(path.read_bytes())


def onnx(data: bytes) -> bool:
    """Looks at a graph, checks the files that it refers to, and asks an architecture whether it knows it."""
    folder = FOLDER / "graph"
    if not folder.exists():
        place("graph/weights.bin", bytes(64))
        place("outside.bin", bytes(64))
        (folder / "link.bin").symlink_to(FOLDER / "outside.bin")
        os.link(FOLDER / "outside.bin", folder / "hard.bin")
    path = place("graph/model.onnx", data)
    try:
        facts = inspect_file(path)
    except ModelFileError:
        return False
    assert facts.summary().isprintable()
    found = lensmount_reading.onnx_file.read_onnx(path)
    for file in lensmount_reading.external_data.check_external_data(found, folder):
        assert file in (folder / "weights.bin", folder / "model.onnx"), file
    if facts.error is not None or facts.kind != "onnx":
        return False
    _ = facts.precision
    card = lensmount_yolo.recognise.recognise(facts)
    return card is not None


def tflite(data: bytes) -> bool:
    """Looks at a TFLite file, asks an architecture whether it knows it, and makes an ONNX graph of it."""
    path = place("model.tflite", data)
    facts = inspect_file(path)
    assert facts.summary().isprintable()
    lensmount_mediapipe.recognise.recognise(facts)
    made = lensmount_mediapipe.conversion.convert(path)
    assert all(array.flags.c_contiguous for array in made.initializers.values())
    return True


def metadata(data: bytes) -> bool:
    """A graph's inputs, outputs and texts, in the hands of an architecture."""
    try:
        tree = json.loads(data)
        values = {
            key: tuple(GraphValue(str(name), str(dtype), tuple(shape)) for name, dtype, shape in tree[key])
            for key in ("inputs", "outputs")
        }
        texts = {str(key): str(value) for key, value in tree["metadata"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoInputError from error
    for value in (*values["inputs"], *values["outputs"]):
        for size in value.shape:  # as a graph can say it
            if not (size is None or isinstance(size, str) or (type(size) is int and 0 <= size < 2**63)):
                raise NoInputError
    facts = FileFacts(Path("m"), "onnx", len(data), **values, metadata=texts)
    card = lensmount_yolo.recognise.recognise(facts)
    return card is not None and check_card(card)


# --- descriptions -----------------------------------------------------------------------------------------------------


def check_card(card: ModelCard) -> bool:
    """A card is plain data: hashable, and JSON's."""
    hash(card)
    json.dumps(to_dict(card))
    return True


def manifest(data: bytes) -> bool:
    """A `lensmount.json`, by itself and in its folder; what it names lies in that folder."""
    place("manifest/weights.bin", bytes(64))
    folder = place("manifest/lensmount.json", data).parent
    card = lensmount.store.manifests.read_manifest(folder)
    for package in card.packages:
        for artifact in package.artifacts:
            path = lensmount.store.addresses.path_of(artifact.uri)
            assert path.resolve().is_relative_to(folder.resolve()), path
    hub = lensmount.store.manifests.parse_manifest(data, base_uri="hf://owner/repo")
    assert all(a.uri.startswith("hf://owner/repo/") for p in hub.packages for a in p.artifacts)
    return check_card(card)


def peer(data: bytes) -> bool:
    """A package folder of inference-models, of any content."""
    try:
        tree = json.loads(data)
        written = {name: text if isinstance(text, str) else json.dumps(text) for name, text in tree.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise NoInputError from error
    folder = FOLDER / "peer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("weights.onnx", "engine.plan", "model.pt", "weights.pth"):
        place(f"peer/{name}", b"x")
    known = {file.name for files in lensmount_roboflow.packages.folder.FILES.values() for file in files} | {
        "model_config.json"
    }
    for name in known & set(written):
        place(f"peer/{name}", written[name].encode("utf-8", "surrogatepass"))
    card = lensmount_roboflow.packages.folder.read_inference_models_folder(folder)
    for package in card.packages:
        for artifact in package.artifacts:
            assert lensmount.store.addresses.path_of(artifact.uri).resolve().is_relative_to(folder.resolve())
    return check_card(card)


def provider(data: bytes) -> bool:
    """A page of a provider's metadata, and the small files that it names."""
    page = lensmount_roboflow.client._metadata(data, "a/1")
    made = lensmount_roboflow.packages.schema.parse(lensmount_roboflow.client.Metadata, page, "the answer")
    files = json.loads(data.decode("utf-8-sig")).get("files")

    def bring(artifact: Artifact) -> bytes:
        found = files.get(artifact.name, "") if isinstance(files, dict) else ""
        return (found if isinstance(found, str) else json.dumps(found)).encode("utf-8", "surrogatepass")

    return check_card(lensmount_roboflow.mapping.card_of([made], bring))


def texts(data: bytes) -> bool:
    """A lock file, or an address."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, str):
        lensmount.store.lock.read_lock(place("lensmount.lock", data))
        return True
    lensmount.store.addresses.public(tree)
    lensmount.store.addresses.scheme_of(tree)
    taken = False
    for parse in (
        lensmount.store.addresses.parse_hub,
        lensmount.store.addresses.parse_web,
        lensmount.store.addresses.path_of,
        lensmount.store.package._split,
    ):
        try:
            found = parse(tree)
        except LensmountError:
            continue
        taken = True
        if isinstance(found, lensmount.store.addresses.HubAddress):
            assert lensmount.store.addresses.parse_hub(str(found)) == found
        if isinstance(found, lensmount.store.addresses.WebAddress):
            assert lensmount.store.addresses.parse_web(found.url).url == found.url
    return taken


# --- caches -----------------------------------------------------------------------------------------------------------


def cache(data: bytes) -> bool:
    """An entry of a cache that others can write to: a line of JSON, then the arrays' bytes; its hash is right."""
    head, _, arrays = data.partition(b"\n")
    body = lensmount.caches.serial.MAGIC + struct.pack("<Q", len(head)) + head + arrays
    try:
        value = lensmount.caches.serial.loads(body + hashlib.blake2b(body, digest_size=16).digest())
    except ValueError:  # all that it may raise
        return False
    lensmount.caches.serial.dumps(value)
    return True


# --- pictures ---------------------------------------------------------------------------------------------------------


def image(data: bytes) -> bool:
    """Encoded pictures as bytes, and data URIs."""
    source: Any = data.decode("latin-1") if data.startswith(b"data:") else data
    found = lensmount_vision.images.loading.load(source, max_pixels=MAX_PIXELS)
    assert found.pixels.dtype == np.uint8
    assert found.pixels.ndim == 3
    assert found.pixels.shape[2] == 3
    assert 0 < found.height * found.width <= MAX_PIXELS
    return True


def run(name: str, data: bytes) -> bool:
    """Runs a target; False for an input that was refused as it should be."""
    try:
        return TARGETS[name].run(data)
    except NoInputError:
        return False
    except LensmountError as error:
        assert str(error)
        return False


PICKLE_WORDS = (
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"cos\nsystem\n",
    b"cbuiltins\nset\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n",
    b"ccopyreg\n_reconstructor\n", b"cbuiltins\nbytearray\n", b"c_codecs\nencode\n", b"ctorch\nTensor\n",
    b"X\x07\0\0\0storage", b"\x80\x02", b"\x80\x04\x95", b"tR", b"tQ", b"}b", b"\x93", b"\x8a\x08",
)  # fmt: skip
JSON_WORDS = tuple(
    json.dumps(word).encode()
    for word in (
        "format", "format_version", "card", "packages", "artifacts", "name", "uri", "path", "size", "sha256", "batch",
        "preprocess", "requirements", "settings", "lensmount", "static", "model_architecture", "backend_type",
        "model_config.json", "inference_config.json", "network_input", "modelPackages", "packageManifest", "type",
    )
)  # fmt: skip

ARCHIVE_WORDS = (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"data.pkl", b"byteorder")
GRAPH_WORDS = (b"location", b"offset", b"length", b"weights.bin", b"../outside.bin", b"link.bin", b"hard.bin")
TFLITE_WORDS = (b"TFL3", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\1\0\0\0", b"\x04\0\x06\0")
CACHE_WORDS = (
    b'["a","<f4",[', b'["n","<i8",[]]', b'["T","float32",[', b'["t",[', b'["l",[', b'["d",[["k",', b'["b","',
    b'["f","nan"]', b'["v",', b'"|u1"', b'"O"', b'"V8"', b'"<U4"', b"-1", b"1e99", b"99999999999999999999",
)  # fmt: skip
IMAGE_WORDS = (
    b"IHDR", b"IDAT", b"IEND", b"eXIf", b"Exif\0\0", b"\xff\xd8", b"\xff\xc0", b"RIFF", b"VP8 ", b"VP8L", b"VP8X",
    b"BM", b"II*\0", b"GIF89a",
)  # fmt: skip

TARGETS: dict[str, Target] = {
    "checkpoint": Target(checkpoint, words=ARCHIVE_WORDS),
    "pickle": Target(pickle, words=PICKLE_WORDS),
    "safetensors": Target(checkpoint, mutators.mutate_safetensors, (b'"data_offsets"', b'"BF16"', b'"F8_E4M3"')),
    "onnx": Target(onnx, words=GRAPH_WORDS),
    "tflite": Target(tflite, words=TFLITE_WORDS),
    "metadata": Target(metadata, mutators.mutate_json),
    "manifest": Target(manifest, mutators.mutate_json, JSON_WORDS),
    "peer": Target(peer, mutators.mutate_json, JSON_WORDS),
    "provider": Target(provider, mutators.mutate_json, JSON_WORDS),
    "texts": Target(texts, mutators.mutate_json, JSON_WORDS),
    "image": Target(image, words=IMAGE_WORDS),
    "cache": Target(cache, words=CACHE_WORDS),
}
