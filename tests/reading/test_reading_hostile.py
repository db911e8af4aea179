"""Pickles that try to run code, look elsewhere or eat the machine: each is refused, by name, and none runs anything.

`TRICKS` builds the bytes by hand. Where the standard unpickler would really run the trick (`live`), a test shows that
it does, so that the refusals are of the real thing.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import inspect_file, limits, module_state_dict, read_checkpoint
from lensmount_reading.legacy import MAGIC_NUMBER
from lensmount_reading.pickles import scan_pickle

STOP = b"."
MAGIC_BYTES = pickle.dumps(MAGIC_NUMBER, protocol=2)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def glob(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def stack_glob(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def mkdir(canary: str) -> bytes:
    """A call that really leaves something behind."""
    return call(glob("os", "mkdir"), text(canary))


def code(canary: str) -> bytes:
    return text(f"__import__('os').mkdir({canary!r})")


# name -> (what must be named, bytes without STOP by the canary's path, whether pickle.loads really runs it)
TRICKS = {
    "global": ("os.mkdir", lambda c: mkdir(c), True),
    "posix": ("posix.mkdir", lambda c: call(glob("posix", "mkdir"), text(c)), sys.platform != "win32"),
    "system": ("os.system", lambda c: call(glob("os", "system"), text(f"mkdir '{c}'")), sys.platform != "win32"),
    "exec": ("builtins.exec", lambda c: call(glob("builtins", "exec"), code(c)), True),
    "eval": ("builtins.eval", lambda c: call(glob("builtins", "eval"), code(c)), True),
    "python 2 eval": ("builtins.eval", lambda c: b"\x80\x02" + call(glob("__builtin__", "eval"), code(c)), True),
    "nested reduce": (
        "builtins.getattr",
        lambda c: call(
            call(glob("builtins", "getattr"), call(glob("builtins", "__import__"), text("os")), text("mkdir")), text(c)
        ),
        True,
    ),
    "import": (
        "builtins.__import__",
        lambda c: call(glob("builtins", "__import__"), text("os")) + b"0" + mkdir(c),
        True,
    ),
    "result thrown away": ("os.mkdir", lambda c: b"(" + mkdir(c) + b"1N", True),
    "popped": ("os.mkdir", lambda c: mkdir(c) + b"0}", True),
    "inside a state dict": ("os.mkdir", lambda c: b"}(" + text("a") + b"K\x01" + text("b") + mkdir(c) + b"u", True),
    "as a dict key": ("os.mkdir", lambda c: b"}" + mkdir(c) + b"Ns", True),
    "inst": ("os.mkdir", lambda c: b"(" + text(c) + b"ios\nmkdir\n", True),
    "obj": ("os.mkdir", lambda c: b"(" + glob("os", "mkdir") + text(c) + b"o", True),
    "stack_global": ("os.mkdir", lambda c: stack_glob("os", "mkdir") + text(c) + b"\x85R", True),
    "stack_global through the memo": (
        "os.mkdir",
        lambda c: text("os") + b"q\x00" + text("mkdir") + b"q\x01" + b"00}0h\x00h\x01\x93" + text(c) + b"\x85R",
        True,
    ),
    "stack_global by memoize": (
        "os.mkdir",
        lambda c: b"\x80\x04\x8c\x02os\x94\x8c\x05mkdir\x94\x93\x94" + text(c) + b"\x94\x85\x94R\x94",
        True,
    ),
    "aliased function": (
        "os.mkdir",
        lambda c: glob("os", "mkdir") + b"q\x05" + b"0" + text("harmless") + b"0h\x05" + text(c) + b"\x85R",
        True,
    ),
    "newobj": (
        "subprocess.Popen",
        lambda c: glob("subprocess", "Popen") + b"]" + text("ls") + b"a\x85\x81",
        False,
    ),
    "newobj_ex": (
        "subprocess.Popen",
        lambda c: glob("subprocess", "Popen") + b")" + b"}" + text("args") + text("ls") + b"s\x92",
        False,
    ),
    "reconstructor": (
        "subprocess.Popen",
        lambda c: call(
            glob("copyreg", "_reconstructor"), glob("subprocess", "Popen"), glob("builtins", "object"), b"N"
        ),
        False,
    ),
    "newobj function": (
        "copyreg.__newobj__",
        lambda c: call(glob("copyreg", "__newobj__"), glob("subprocess", "Popen")),
        False,
    ),
    "partial": (
        "functools.partial",
        lambda c: call(call(glob("functools", "partial"), glob("os", "mkdir")), text(c)),
        True,
    ),
    "attrgetter": (
        "operator.attrgetter",
        lambda c: call(
            call(glob("operator", "attrgetter"), text("mkdir")), call(glob("builtins", "__import__"), text("os"))
        ),
        False,
    ),
    "methodcaller": (
        "operator.methodcaller",
        lambda c: call(
            call(glob("operator", "methodcaller"), text("mkdir"), text(c)),
            call(glob("builtins", "__import__"), text("os")),
        ),
        True,
    ),
    "map": (
        "builtins.map",
        lambda c: call(
            glob("builtins", "list"), call(glob("builtins", "map"), glob("os", "mkdir"), b"]" + text(c) + b"a")
        ),
        True,
    ),
    "codecs": ("codecs.decode", lambda c: call(glob("codecs", "decode"), b"C\x01a", text("rot13")), False),
    "codecs beside the allowed one": (
        "_codecs.decode",
        lambda c: call(glob("_codecs", "decode"), b"C\x01a", text("rot13")),
        False,
    ),
    "setstate": (
        "builtins.property",
        lambda c: glob("builtins", "property") + b")\x81" + b"}" + text("__setstate__") + glob("os", "mkdir") + b"sb",
        False,
    ),
    "setstate of a class": (
        "os.mkdir",
        lambda c: (
            call(glob("types", "SimpleNamespace"))
            + b"}"
            + text("__setstate__")
            + glob("os", "mkdir")
            + b"sb"
            + text(c)
            + b"b"
        ),
        True,
    ),
    "build on a function": (
        "builtins.print",
        lambda c: glob("builtins", "print") + b"N}" + text("__call__") + glob("os", "mkdir") + b"s\x86b",
        False,
    ),
    "items of the environment": (
        "os.environ",
        lambda c: glob("os", "environ") + text("LENSMOUNT_X") + text("1") + b"s",
        True,
    ),
    "import_module": (
        "importlib.import_module",
        lambda c: call(glob("importlib", "import_module"), text("antigravity")),
        False,
    ),
    "runpy": ("runpy.run_path", lambda c: call(glob("runpy", "run_path"), text(c)), False),
    "webbrowser": ("webbrowser.open", lambda c: call(glob("webbrowser", "open"), text("http://localhost")), False),
    "pty": ("pty.spawn", lambda c: call(glob("pty", "spawn"), text("sh")), False),
    "ctypes": ("ctypes.CDLL", lambda c: call(glob("ctypes", "CDLL"), text(c)), False),
    "shutil": ("shutil.rmtree", lambda c: call(glob("shutil", "rmtree"), text(c)), False),
    "timeit": (
        "timeit.timeit",
        lambda c: call(glob("timeit", "timeit"), code(c), text("pass"), glob("time", "time"), b"K\x01"),
        True,
    ),
    "profile": ("cProfile.run", lambda c: call(glob("cProfile", "run"), code(c)), False),
    "code made anew": (
        "marshal.loads",
        lambda c: call(glob("types", "FunctionType"), call(glob("marshal", "loads"), b"C\x01x"), b"}"),
        False,
    ),
    "pickle in a pickle": (
        "_pickle.loads",
        lambda c: call(glob("_pickle", "loads"), b"B" + struct.pack("<I", len(mkdir(c)) + 1) + mkdir(c) + STOP),
        True,
    ),
    "pip": ("pip._internal.main", lambda c: call(glob("pip._internal", "main"), b"]"), False),
    "numpy.load": ("numpy.load", lambda c: call(glob("numpy", "load"), text(c), b"N", b"\x88"), False),
    "numpy runstring": (
        "numpy.testing._private.utils.runstring",
        lambda c: call(glob("numpy.testing._private.utils", "runstring"), code(c), b"}"),
        True,
    ),
    "torch.load": ("torch.load", lambda c: call(glob("torch", "load"), text(c)), False),
    "torch.serialization.load": (
        "torch.serialization.load",
        lambda c: call(glob("torch.serialization", "load"), text(c)),
        False,
    ),
    "storage from bytes": (
        "torch.storage._load_from_bytes",
        lambda c: call(glob("torch.storage", "_load_from_bytes"), b"C\x01x"),
        False,
    ),
    "torch.hub": ("torch.hub.load", lambda c: call(glob("torch.hub", "load"), text("evil/repo"), text("x")), False),
    "torch.jit": ("torch.jit.load", lambda c: call(glob("torch.jit", "load"), text(c)), False),
    "function among the modules": (
        "torch.nn.modules.utils._pair",
        lambda c: call(glob("torch.nn.modules.utils", "_pair"), b"K\x01"),
        False,
    ),
    "function of the model code": (
        "ultralytics.utils.checks.check_requirements",
        lambda c: call(glob("ultralytics.utils.checks", "check_requirements"), text("evil")),
        False,
    ),
    "older model code": (
        "models.experimental.attempt_load",
        lambda c: call(glob("models.experimental", "attempt_load"), text(c)),
        False,
    ),
    "class of the main program": ("__main__.Evil", lambda c: glob("__main__", "Evil") + b")\x81", False),
    "wide letters": (r"\uff4f\uff53.mkdir", lambda c: call(stack_glob("ｏｓ", "mkdir"), text(c)), False),
    "look-alike prefix": (
        "torch.nn.modulesx.conv.Conv2d",
        lambda c: glob("torch.nn.modulesx.conv", "Conv2d") + b")\x81",
        False,
    ),
    "dotted name": (
        "torch.nn.modules.conv.Conv2d.__init__.__globals__",
        lambda c: stack_glob("torch", "nn.modules.conv.Conv2d.__init__.__globals__"),
        False,
    ),
    "dotted name of an allowed class": (
        "torch.nn.modules.conv.Conv2d.__init__",
        lambda c: call(stack_glob("torch.nn.modules.conv", "Conv2d.__init__"), b"N"),
        False,
    ),
    "dotted name of an allowed constructor": (
        "collections.OrderedDict.fromkeys",
        lambda c: call(stack_glob("collections", "OrderedDict.fromkeys"), b"]"),
        False,
    ),
    "module attribute": (
        "ultralytics.__builtins__.Exec",
        lambda c: glob("ultralytics.__builtins__", "Exec"),
        False,
    ),
    "carriage return": (r"os\r.mkdir", lambda c: b"cos\r\nmkdir\n" + text(c) + b"\x85R", False),
    "terminal escapes": (r"os\x1b[2J.x", lambda c: stack_glob("os\x1b[2J", "x"), False),
    "global named by a list": ("a global named by a list", lambda c: b"]" + text("x") + b"\x93", False),
    "extension registry": ("extension 1 of the copyreg registry", lambda c: b"\x82\x01" + text(c) + b"\x85R", False),
    "extension registry, 4 bytes": (
        "extension 70000 of the copyreg",
        lambda c: b"\x84" + struct.pack("<I", 70000),
        False,
    ),
    "code, then garbage": ("os.mkdir", lambda c: mkdir(c) + b"\xff\xff", True),
    "code, then an empty stack": ("os.mkdir", lambda c: mkdir(c) + b"000", True),
    "rebuilt by a chosen function": (
        "os.mkdir",
        lambda c: call(
            glob("torch._tensor", "_rebuild_from_type_v2"), glob("os", "mkdir"), b"N", text(c) + b"\x85", b"N"
        ),
        False,
    ),
    "hooks of a parameter": (
        "os.mkdir",
        lambda c: call(glob("torch._utils", "_rebuild_parameter"), b"N", b"\x88", mkdir(c)),
        True,
    ),
    "default factory": (
        "os.getcwd",
        lambda c: call(glob("collections", "defaultdict"), glob("os", "getcwd")),
        False,
    ),
    "unknown tensor function": (
        "torch._utils._rebuild_device_tensor_from_numpy",
        lambda c: call(glob("torch._utils", "_rebuild_device_tensor_from_numpy"), b"N"),
        False,
    ),
}


def archive(path: Path, data: bytes, **entries: bytes) -> Path:
    """A zip as torch.save writes it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("m/data.pkl", data)
        file.writestr("m/byteorder", b"little")
        file.writestr("m/version", b"3\n")
        for name, content in entries.items():
            file.writestr("m/" + name.replace("__", "/"), content)
    return path


@pytest.mark.parametrize("modules", ["refuse", "records"])
@pytest.mark.parametrize("trick", TRICKS)
def test_refused_by_name_and_nothing_runs(tmp_path, trick, modules):
    named, build, _ = TRICKS[trick]
    canary = tmp_path / "canary"
    path = archive(tmp_path / "m.pt", build(str(canary)) + STOP)
    before = set(sys.modules)
    with pytest.raises(UnsafeFileError) as caught:
        read_checkpoint(path, modules=modules)
    assert named in str(caught.value)
    facts = inspect_file(path)
    assert any(named in name for name in facts.refused_globals)
    assert isinstance(facts.error, UnsafeFileError)
    assert not canary.exists()
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not new & {
        "antigravity",
        "pty",
        "runpy",
        "webbrowser",
        "cProfile",
        "timeit",
        "ultralytics",
        "models",
        "torch",
    }


@pytest.mark.parametrize("trick", [name for name, (_, _, live) in TRICKS.items() if live])
def test_the_trick_is_real(tmp_path, monkeypatch, trick):
    monkeypatch.setenv("LENSMOUNT_X", "0")
    canary = tmp_path / "canary"
    _, build, _ = TRICKS[trick]
    try:
        pickle.loads(build(str(canary)) + STOP)
    except Exception:
        assert canary.exists()  # it failed after it had run
    import os

    assert canary.exists() or os.environ["LENSMOUNT_X"] == "1"


@pytest.mark.parametrize("trick", TRICKS)
def test_legacy_and_bare_files_are_refused_by_name_too(tmp_path, trick):
    named, build, _ = TRICKS[trick]
    canary = tmp_path / "canary"
    bad = b"\x80\x02" + build(str(canary)) + STOP
    version, system, keys = b"\x80\x02M\xe9\x03.", b"\x80\x02}.", b"\x80\x02]."
    files = {
        "bare": bad,
        "bare, old protocol": build(str(canary)) + STOP,
        "object": MAGIC_BYTES + version + system + bad + keys,
        "version": MAGIC_BYTES + bad + system + b"}." + keys,
        "system": MAGIC_BYTES + version + bad + b"}." + keys,
        "keys": MAGIC_BYTES + version + system + b"\x80\x02}." + bad,
    }
    for name, data in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UnsafeFileError) as caught:
            read_checkpoint(path, modules="records")
        assert named in str(caught.value), name
        assert inspect_file(path).error is not None
    assert not canary.exists()


def test_extension_registry_is_not_consulted(tmp_path):
    code_number = 240
    copyreg.add_extension("os", "getcwd", code_number)
    try:
        scan = scan_pickle(b"\x82" + bytes([code_number]) + b")R.", where="x", policy="modules")
    finally:
        copyreg.remove_extension("os", "getcwd", code_number)
    assert scan.refused == ("extension 240 of the copyreg registry",)


def test_refusal_does_not_hide_what_comes_after():
    first = call(call(glob("builtins", "getattr"), call(glob("builtins", "__import__"), text("os"))), text("x"))
    middle = (
        b"0" + glob("os", "environ") + text("a") + b"Ns0}" + glob("m", "K") + b"Ns0" + glob("o", "L") + b"Na0N}b0Pid\n0"
    )
    scan = scan_pickle(first + middle + mkdir("x") + STOP, where="x", policy="modules")
    names = ["builtins.getattr", "builtins.__import__", "os.environ", "m.K", "o.L", "os.mkdir"]
    assert list(scan.refused) == names


def test_every_refused_name_is_listed():
    names = [("os", "system"), ("builtins", "eval"), ("posix", "fork"), ("torch.hub", "load")]
    data = b"](" + b"".join(glob(*name) for name in names) + b"e."
    scan = scan_pickle(data, where="x", policy="modules")
    assert scan.refused == ("os.system", "builtins.eval", "posix.fork", "torch.hub.load")
    with pytest.raises(UnsafeFileError, match=r"os\.system, builtins\.eval, posix\.fork, torch\.hub\.load"):
        scan.checked()


def test_code_after_stop_is_named(tmp_path):
    canary = tmp_path / "canary"
    path = archive(tmp_path / "m.pt", b"\x80\x02}." + b"\x80\x02" + mkdir(str(canary)) + STOP)
    with pytest.raises(UnsafeFileError, match=r"os\.mkdir"):
        read_checkpoint(path)
    assert inspect_file(path).refused_globals == ("os.mkdir",)
    path = archive(tmp_path / "n.pt", b"\x80\x02}." + b"\0\0")
    with pytest.raises(UnsafeFileError, match="2 bytes follow its end"):
        read_checkpoint(path)


def test_other_pickles_of_an_archive_are_named_by_inspection(tmp_path):
    path = archive(tmp_path / "m.pt", b"\x80\x02}.", extra__x=b"", evil=b"")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("m/hidden.pkl", mkdir("x") + STOP)
    assert read_checkpoint(path).tree == {}  # it is never read
    assert inspect_file(path).refused_globals == ("os.mkdir",)


def test_module_classes_are_refused_by_name_unless_asked_for(tmp_path):
    data = b"\x80\x02" + glob("ultralytics.nn.tasks", "DetectionModel") + b")\x81}" + text("stride") + b"K\x20sb."
    path = archive(tmp_path / "m.pt", data)
    with pytest.raises(UnsafeFileError, match=r"ultralytics\.nn\.tasks\.DetectionModel") as caught:
        read_checkpoint(path)
    assert "records" in caught.value.fix
    record = read_checkpoint(path, modules="records").tree
    assert (record.module, record.name, record.state) == ("ultralytics.nn.tasks", "DetectionModel", {"stride": 32})
    assert inspect_file(path).refused_globals == ()


def test_script_classes_are_not_for_plain_files(tmp_path):
    path = archive(tmp_path / "m.pt", glob("__torch__.evil", "Model") + b")\x81.")
    assert inspect_file(path).refused_globals == ("__torch__.evil.Model",)
    with pytest.raises(UnsafeFileError, match=r"__torch__\.evil\.Model"):
        read_checkpoint(path, modules="records")


# --- bombs ------------------------------------------------------------------------------------------------------------

LAUGHS = b"]q\x00" + b"".join(
    b"0](" + b"h" + bytes([level]) + b"h" + bytes([level]) + b"eq" + bytes([level + 1]) for level in range(80)
)

BOMBS = {
    "integer of 2 GB": (b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.", UnsafeFileError),
    "integer of negative size": (b"\x8b" + struct.pack("<i", -5) + b"\x01.", UnsafeFileError),
    "integer of 300 bytes": (b"\x8b" + struct.pack("<i", 300) + b"\x01" * 300 + b".", UnsafeFileError),
    "digits": (b"I" + b"9" * 900 + b"\n.", ModelFileError),
    "endless line": (b"I" + b"9" * 100_000, UnsafeFileError),
    "long digits": (b"L" + b"9" * 900 + b"L\n.", ModelFileError),
    "string of 2^60 bytes": (b"\x8d" + struct.pack("<Q", 2**60) + b"x.", UnsafeFileError),
    "bytes of 4 GB": (b"B" + struct.pack("<I", 2**32 - 1) + b"x.", UnsafeFileError),
    "bytearray of 2^63 bytes": (b"\x96" + struct.pack("<Q", 2**63) + b"x.", UnsafeFileError),
    "frame of 2^60 bytes": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.", ModelFileError),
    "million marks": (b"(" * 1_000_000 + b".", UnsafeFileError),
    "deep tuples": (b")" + b"\x85" * 200_000 + b".", UnsafeFileError),
    "deep lists": (b"]q\x00" + b"0]h\x00aq\x00" * 40_000 + b".", UnsafeFileError),
    "deep dicts": (b"}q\x00" + (b"0}" + text("k") + b"h\x00sq\x00") * 30_000 + b".", UnsafeFileError),
    "deep records": (
        b"Nq\x00" + (b"0" + glob("ultralytics.x", "C") + b")\x81}" + text("a") + b"h\x00sbq\x00") * 20_000 + b".",
        UnsafeFileError,
    ),
    "deep tuple as a key": (b"})" + b"\x85" * 100_000 + b"Ns.", UnsafeFileError),
    "wide tuple as a key": (b")q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"0}h\x00Ns.", UnsafeFileError),
    "too many opcodes": (b"N0" * 200_000 + b"N.", UnsafeFileError),
    "too many sets": (b"(" + b"\x8f" * 150_000 + b"t.", UnsafeFileError),
    "copies of a shared list": (
        b"](" + b"N" * 100_000 + b"eq\x000(" + (glob("builtins", "list") + b"h\x00\x85R") * 1_000 + b"t.",
        UnsafeFileError,
    ),
    "copies of a shared string": (
        text("x" * 1_000_000) + b"q\x000(" + (call(glob("_codecs", "encode"), b"h\x00", text("latin1"))) * 200 + b"t.",
        UnsafeFileError,
    ),
    "key that is a list": (b"}]Ns.", UnsafeFileError),
    "set of dicts": (b"\x8f(}\x90.", UnsafeFileError),
    "odd number of items": (b"}(Nu.", ModelFileError),
    "append to a tuple": (b")Na.", UnsafeFileError),
    "items of a list": (b"]NNs.", UnsafeFileError),
    "call of a string": (text("os.system") + b")R.", UnsafeFileError),
    "call of a record": (glob("types", "SimpleNamespace") + b")R)R.", UnsafeFileError),
    "arguments that are no tuple": (glob("collections", "OrderedDict") + b"NR.", ModelFileError),
    "state twice": (glob("types", "SimpleNamespace") + b")R}" + text("a") + b"Nsb}b.", UnsafeFileError),
    "state of a class": (glob("collections", "OrderedDict") + b"N}\x86b.", UnsafeFileError),
    "state of a list": (b"]}b.", UnsafeFileError),
    "persistent id": (b"Pos.system\n.", UnsafeFileError),
    "binary persistent id": (text("os.system") + b"Q.", UnsafeFileError),
    "out of band": (b"\x97.", UnsafeFileError),
    "protocol 9": (b"\x80\x09N.", ModelFileError),
    "no opcode": (b"\xfeN.", ModelFileError),
    "nothing": (b"", ModelFileError),
    "no STOP": (b"N", ModelFileError),
    "empty stack": (b".", ModelFileError),
    "two objects": (b"NN.", ModelFileError),
    "open mark": (b"(N.", ModelFileError),
    "unknown memo": (b"h\x07.", ModelFileError),
    "negative memo": (b"Np-1\n.", ModelFileError),
    "pop of nothing": (b"0.", ModelFileError),
    "tuple without mark": (b"Nt.", ModelFileError),
    "obj of nothing": (b"(o.", ModelFileError),
    "bad number": (b"F1__0\n.", ModelFileError),
    "bad integer": (b"I0x10\n.", ModelFileError),
    "set of a string": (call(glob("builtins", "set"), text("abc")) + b".", ModelFileError),
    "bytes of a number": (call(glob("builtins", "bytes"), b"J\xff\xff\xff\x7f") + b".", UnsafeFileError),
    "bytearray of a number": (call(glob("builtins", "bytearray"), b"J\xff\xff\xff\x7f") + b".", UnsafeFileError),
    "other encoding": (call(glob("_codecs", "encode"), text("x"), text("zlib")) + b".", UnsafeFileError),
    "bytes of another encoding": (call(glob("builtins", "bytes"), text("x"), text("idna")) + b".", UnsafeFileError),
    "reconstructor of reconstructors": (
        call(glob("copyreg", "_reconstructor"), glob("copyreg", "_reconstructor"), glob("builtins", "object"), b"N")
        + b".",
        ModelFileError,
    ),
    "reconstructor on a dict": (
        call(glob("copyreg", "_reconstructor"), glob("argparse", "Namespace"), glob("builtins", "dict"), b"}") + b".",
        UnsafeFileError,
    ),
    "rebuilders nested": (
        call(
            glob("torch._tensor", "_rebuild_from_type_v2"),
            glob("torch._tensor", "_rebuild_from_type_v2"),
            b"N",
            b")",
            b"N",
        )
        + b".",
        UnsafeFileError,
    ),
    "storage called": (call(glob("torch", "FloatStorage"), b"K\x01") + b".", ModelFileError),
    "parameter of nothing": (
        call(glob("torch._utils", "_rebuild_parameter"), b"N", b"\x88", b"N") + b".",
        ModelFileError,
    ),
    "long name": (stack_glob("_" * 100_000, "_" * 100_000) + b".", UnsafeFileError),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_quickly_and_in_little_memory(monkeypatch, bomb):
    # Lower limits on the mere number of steps: tracing makes each of them slow.
    monkeypatch.setattr(limits, "MAX_OPCODES", 300_000)
    monkeypatch.setattr(limits, "MAX_CONTAINERS", 100_000)
    data, kind = BOMBS[bomb]
    tracemalloc.start()
    began = time.process_time()
    try:
        scan = scan_pickle(data, where="x", policy="modules")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(scan.problem, kind), scan
    assert peak < 100 << 20
    assert time.process_time() - began < 30  # traced allocations are slow; the bound is against hangs


@pytest.mark.parametrize("index", [b"r\xff\xff\xff\xff", b"p4294967295\n"])
def test_memo_index_allocates_nothing(index):
    tracemalloc.start()
    scan = scan_pickle(b"N" + index + b".", where="x", policy="plain")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scan.problem is None
    assert peak < 1 << 20


def test_shared_references_stay_shared(tmp_path):
    path = archive(tmp_path / "m.pt", LAUGHS + b".")
    tracemalloc.start()
    tree = read_checkpoint(path).tree
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tree[0] is tree[1]
    assert peak < 1 << 20


def test_endless_unfolding_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_NODES", 100_000)
    # 2^80 paths lead to the innermost list; walking them is refused, reading and inspecting are not.
    path = archive(tmp_path / "m.pt", LAUGHS + b".")
    with pytest.raises(UnsafeFileError, match="unfolds"):
        _ = read_checkpoint(path).tensors
    assert "unfolds" in inspect_file(path).error.problem
    module = glob("torch.nn.modules.container", "Sequential")
    levels = b"".join(
        module + b")\x81}" + text("_modules") + b"}(" + text("a") + b"h" + bytes([n]) + text("b") + b"h" + bytes([n])
        + b"usbq" + bytes([n + 1])
        for n in range(60)
    )  # fmt: skip
    inner = module + b")\x81}" + text("_modules") + b"}sbq\x00"
    path = archive(tmp_path / "n.pt", inner + b"0(" + levels + b"th" + bytes([60]) + b"\x86.")
    root = read_checkpoint(path, modules="records").tree[1]
    with pytest.raises(UnsafeFileError, match="unfolds"):
        module_state_dict(root)


def test_cycles_are_harmless(tmp_path):
    cyclic = b"]q\x00h\x00a}q\x01" + text("self") + b"h\x01s\x86."
    tree = read_checkpoint(archive(tmp_path / "m.pt", cyclic)).tree
    assert tree[0][0] is tree[0]
    assert read_checkpoint(tmp_path / "m.pt").tensors == {}
    module = glob("torch.nn.modules.container", "Sequential") + b")\x81q\x00}" + text("_modules") + b"}" + text("me")
    root = read_checkpoint(archive(tmp_path / "n.pt", module + b"h\x00ssb."), modules="records").tree
    assert module_state_dict(root) == {}


def test_colliding_keys(tmp_path):
    # Multiples of 2^61 - 1 all hash to 0: without a limit this is quadratic.
    keys = b"".join(b"\x8a\x0a" + ((2**61 - 1) * n).to_bytes(10, "little") + b"N" for n in range(1, 50_000))
    began = time.process_time()
    scan = scan_pickle(b"}(" + keys + b"u.", where="x", policy="plain")
    assert isinstance(scan.problem, UnsafeFileError)
    assert time.process_time() - began < 20
