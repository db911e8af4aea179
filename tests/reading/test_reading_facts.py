"""What inspection says of files, and what importing it costs."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile

import pytest

import lensmount_reading
from lensmount.errors import AmbiguousModelError, ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import FileFacts, TensorFact, inspect_file, require_usable


def test_every_public_name_is_there():
    for name in lensmount_reading.__all__:
        assert getattr(lensmount_reading, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = lensmount_reading.nothing
    assert set(lensmount_reading.__all__) <= set(dir(lensmount_reading))


def test_importing_is_light():
    program = """
import sys
from lensmount_reading import FileFacts, GraphValue, TensorFact, inspect_file, read_checkpoint, to_safetensors
heavy = {"numpy", "torch", "onnx", "onnxruntime", "safetensors", "pickle", "zipfile", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def write_archive(path, data):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", data)
    return path


def test_a_dangerous_file_is_described_and_cannot_be_used(tmp_path):
    path = write_archive(tmp_path / "best.safetensors", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.")
    facts = inspect_file(path)
    assert facts.kind == "torch"  # whatever the name says
    assert facts.refused_globals == facts.globals == ("os.system",)
    assert "asks for os.system" in facts.summary()
    with pytest.raises(UnsafeFileError, match=r"os\.system"):
        require_usable(facts)
    with pytest.raises(UnsafeFileError, match=r"os\.system"):
        _ = facts.checkpoint


def test_a_sound_file_can_be_used(tmp_path):
    facts = inspect_file(write_archive(tmp_path / "x", b"\x80\x02}X\x05\x00\x00\x00epochK\x07s."))
    assert require_usable(facts) is facts
    assert facts.tree == {"epoch": 7}
    assert facts.checkpoint is facts.checkpoint


def test_damaged_files_are_described(tmp_path):
    whole = write_archive(tmp_path / "m.pt", b"\x80\x02}.").read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[:-10])
    facts = inspect_file(path)
    assert (facts.kind, facts.size) == ("zip", len(whole) - 10)
    with pytest.raises(ModelFileError, match="not a whole zip archive"):
        require_usable(facts)
    path.write_bytes(b"some text")
    assert isinstance(inspect_file(path).error, UnsupportedModelError)
    with pytest.raises(ModelFileError):
        inspect_file(tmp_path / "absent")
    with pytest.raises(AmbiguousModelError, match=r"cut\.pt, m\.pt"):
        inspect_file(tmp_path)


def test_engines_with_the_metadata_of_ultralytics(tmp_path):
    text = json.dumps({"task": "detect", "stride": 32, "names": {"0": "ball"}}).encode()
    path = tmp_path / "m.engine"
    path.write_bytes(struct.pack("<i", len(text)) + text + b"ftrt" + bytes(100))
    facts = inspect_file(path)
    assert facts.kind == "engine"
    assert facts.metadata == {"task": "detect", "stride": "32", "names": '{"0": "ball"}'}
    path.write_bytes(struct.pack("<i", len(text)) + text[:-1] + b"xftrt" + bytes(100))
    assert inspect_file(path).metadata == {}


def test_precision_goes_by_the_most_elements(tmp_path):
    def facts(*rows):
        tensors = {str(index): TensorFact(shape, dtype) for index, (shape, dtype) in enumerate(rows)}
        return FileFacts(tmp_path, "torch", 1, tensors=tensors)

    assert facts().precision == "fp32"
    assert facts(((9,), "int64")).precision == "fp32"
    assert facts(((3,), "float32"), ((4,), "float16")).precision == "fp16"
    assert facts(((3, 2), "bfloat16"), ((4,), "float16"), ((90,), "int64")).precision == "bf16"
