"""Machines that we do not have, put together from `machines.toml`: files, a driver that answers, distributions."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import lensmount_onnx.plugin
import lensmount_tensorrt.plugin
import lensmount_torch.plugin
from lensmount.machine.environment import Environment, Host, detect
from lensmount.specs import Backend, BackendStatus

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class FakeNvml:
    """Answers like NVML: status 0 and results through pointers. GPUs are (name, capability, bytes, uuid)."""

    def __init__(self, gpus, driver="580.82.07", init=0):
        self.gpus, self.driver, self.init = gpus, driver, init
        self.shut_down = False

    def nvmlInit_v2(self):  # noqa: N802 - NVML's name
        return self.init

    def nvmlShutdown(self):  # noqa: N802
        self.shut_down = True
        return 0

    def nvmlSystemGetDriverVersion(self, buffer, size):  # noqa: N802
        buffer.value = self.driver.encode()
        return 0

    def nvmlDeviceGetCount_v2(self, out):  # noqa: N802
        out._obj.value = len(self.gpus)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, out):  # noqa: N802
        out._obj.value = index + 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, out):  # noqa: N802
        out._obj.value = 1
        return 0 if uuid == b"MIG-1" else 6

    def nvmlDeviceGetName(self, handle, buffer, size):  # noqa: N802
        buffer.value = self.gpus[handle.value - 1][0].encode()
        return 0

    def nvmlDeviceGetUUID(self, handle, buffer, size):  # noqa: N802
        buffer.value = self.gpus[handle.value - 1][3].encode()
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, handle, major, minor):  # noqa: N802
        major._obj.value, minor._obj.value = self.gpus[handle.value - 1][1]
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle, out):  # noqa: N802
        out._obj.total = self.gpus[handle.value - 1][2]
        return 0


class FakeCuda:
    """Answers like libcuda before `cuInit`."""

    def __init__(self, version):
        self.version = version

    def cuDriverGetVersion(self, out):  # noqa: N802
        out._obj.value = self.version
        return 0


def write(root: Path, files: dict[str, str]) -> Path:
    """Writes files below a folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root


def install(folder: Path, name: str, version: str, files: dict[str, str] | None = None) -> None:
    """Puts a distribution's metadata, and some of its files, into a site-packages folder."""
    stem = f"{name.replace('-', '_')}-{version}.dist-info"
    record = "".join(f"{path},,\n" for path in files or ())
    about = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "RECORD": record}
    write(folder, {**{f"{stem}/{path}": text for path, text in about.items()}, **(files or {})})


def make_host(
    root: Path, *, system="linux", machine="x86_64", release="", environ=None, libraries=None, site: Path | None = None
):
    """A `Host` below a folder."""

    def distribution(name: str):
        found = metadata.Distribution.discover(name=name, path=[str(site)]) if site else ()
        return next(iter(found), None)

    return Host(
        root=root,
        system=system,
        machine=machine,
        release=release,
        environ=environ or {},
        load_library=(libraries or {}).get,
        distribution=distribution,
    )


MACHINES = tomllib.loads(Path(__file__).with_name("machines.toml").read_text(encoding="utf-8"))["machine"]
"""All machines of the table."""


def host_of(facts: dict, folder: Path) -> Host:
    """The machine of one entry, put together in an empty folder."""
    root, site = folder / "root", folder / "site"
    root.mkdir(parents=True)
    write(root, dict(_files(facts)))
    for name, version in facts.get("installed", {}).items():
        install(site, name, version, dict(_files_of(name, facts)))
    for _ in facts.get("lost", ()):
        (site / "onnxruntime/__init__.py").unlink()
    return make_host(
        root,
        system=facts.get("system", "linux"),
        machine=facts.get("machine", "x86_64"),
        release=facts.get("release", ""),
        environ=facts.get("environ", {}),
        libraries=_libraries(facts),
        site=site,
    )


def environment_of(facts: dict, folder: Path) -> Environment:
    """What `detect` finds on the machine of one entry."""
    return detect(host_of(facts, folder))


def _files(facts: dict):
    linux = facts.get("system", "linux") == "linux"
    if "os" in facts:
        yield "etc/os-release", f'NAME="some"\nPRETTY_NAME="{facts["os"]}"\n'
    if linux:
        name = "lib/ld-musl-x86_64.so.1" if facts.get("libc") == "musl" else "lib64/ld-linux-x86-64.so.2"
        yield name, ""
        yield "proc/meminfo", "MemTotal:       16777216 kB\n"
    if "cpu" in facts:
        yield "proc/cpuinfo", f"processor\t: 0\nmodel name\t: {facts['cpu']}\n"
    if "board" in facts:
        yield "proc/device-tree/model", facts["board"] + "\0"
    if "l4t" in facts:
        major, _, revision = facts["l4t"].partition(".")
        yield "etc/nv_tegra_release", f"# R{major} (release), REVISION: {revision}, GCID: 1, BOARD: generic"
        yield "proc/device-tree/compatible", f"nvidia,p3737-0000\0{facts['chip']}\0"
    for i in range(facts.get("cards", 0)):
        yield f"sys/bus/pci/devices/0000:0{i}:00.0/vendor", "0x10de\n"
        yield f"sys/bus/pci/devices/0000:0{i}:00.0/class", "0x030200\n"
    folder = "usr/lib/aarch64-linux-gnu" if facts.get("machine") == "aarch64" else "usr/lib/x86_64-linux-gnu"
    for name in facts.get("libraries", ()):
        yield f"{folder}/{name}", ""


def _files_of(name: str, facts: dict):
    if name == "torch":
        cuda = facts.get("torch_cuda")
        yield "torch/version.py", f"cuda: Optional[str] = {repr(cuda) if cuda else None}\nhip = None\n"
    if name.startswith("onnxruntime"):
        cuda = facts.get("onnxruntime_cuda")
        said = f"package_name = '{facts.get('onnxruntime_is', name)}'\n"
        yield "onnxruntime/__init__.py", ""
        yield "onnxruntime/capi/build_and_package_info.py", said + (f"cuda_version = '{cuda}'\n" if cuda else "")


def _libraries(facts: dict) -> dict[str, object]:
    gpus = [
        (name, tuple(int(part) for part in capability.split(".")), memory * 2**30, f"GPU-{i}")
        for i, (name, capability, memory) in enumerate(facts.get("gpus", ()))
    ]
    windows = facts.get("system") == "windows"
    there: dict[str, object] = {}
    if gpus and facts.get("nvml", 0) >= 0:
        nvml = FakeNvml(gpus, driver=facts.get("driver", ""), init=facts.get("nvml", 0))
        there["nvml.dll" if windows else "libnvidia-ml.so.1"] = nvml
    if "cuda" in facts:
        there["nvcuda.dll" if windows else "libcuda.so.1"] = FakeCuda(facts["cuda"])
    return there


# --- backends ---------------------------------------------------------------------------------------------------------

BACKEND_PLUGINS = (lensmount_onnx.plugin, lensmount_torch.plugin, lensmount_tensorrt.plugin)
"""Our own backends' hook modules, the most general first."""


def backends_of(environment: Environment) -> list[tuple[Backend, BackendStatus]]:
    """Our own backends, by their own probes."""
    from lensmount.specs import import_string

    backends = [backend for plugin in BACKEND_PLUGINS for backend in plugin.lensmount_backends()]
    return [(backend, import_string(backend.probe, backend.name)(environment)) for backend in backends]
