"""The environment report, of machines put together from files and fake drivers."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from importlib import metadata

import pytest

from lensmount.machine import nvidia
from lensmount.machine import system as machine
from lensmount.machine.environment import Environment, Gpu, detect
from lensmount.specs import to_dict
from machines import MACHINES, FakeCuda, FakeNvml, environment_of, install, make_host, write

A100 = ("NVIDIA A100-SXM4-40GB", (8, 0), 40 * 2**30, "GPU-aaaa-1")
T4 = ("Tesla T4", (7, 5), 15 * 2**30, "GPU-bbbb-2")


def nvidia_libraries(*gpus, cuda=13000):
    return {"libnvidia-ml.so.1": FakeNvml(gpus), "libcuda.so.1": FakeCuda(cuda)}


# --- this machine -----------------------------------------------------------------------------------------------------


def test_this_machine_is_described_and_serialisable():
    found = detect()
    assert found.cpu_count >= 1
    assert found.memory_bytes is None or found.memory_bytes > 2**28
    assert found.version("numpy") == metadata.version("numpy")
    assert found.devices[-1] == "cpu"
    assert json.loads(json.dumps(to_dict(found)))["cpu_count"] == found.cpu_count
    hash(found)


def test_detecting_imports_no_runtime_and_starts_no_process():
    code = (
        "import sys, subprocess\n"
        "def refuse(*a, **k): raise AssertionError('a process was started')\n"
        "subprocess.Popen.__init__ = refuse\n"
        "from lensmount.machine.environment import detect\n"
        "detect()\n"
        "heavy = {'numpy', 'torch', 'onnxruntime', 'tensorrt', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_detecting_is_quick():
    detect()
    times = []
    for _ in range(5):
        start = time.thread_time()  # not the clock: a busy machine is not what is measured
        detect()
        times.append(time.thread_time() - start)
    # 10 ms measured; twice that where a neighbour shares the core.
    assert min(times) < 0.05


def test_an_environment_can_be_described_by_hand():
    orin = Environment(machine="aarch64", gpus=(Gpu(name="Orin", compute_capability="8.7"),), l4t="36.4.3")
    assert orin.devices == ("cuda:0", "cpu")
    assert orin.version("torch") is None


# --- other machines ---------------------------------------------------------------------------------------------------


def test_server_with_two_gpus(tmp_path):
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC 7763\n",
            "proc/meminfo": "MemTotal:       1000 kB\n",
            "usr/lib/x86_64-linux-gnu/libcudnn.so.9": "",
            "usr/lib/x86_64-linux-gnu/libcudnn.so.9.10.2": "",
            "usr/lib/x86_64-linux-gnu/libnvinfer.so.10.13.2": "",
        },
    )
    found = detect(make_host(tmp_path, libraries=nvidia_libraries(A100, T4)))
    assert [(g.index, g.name, g.compute_capability) for g in found.gpus] == [(0, A100[0], "8.0"), (1, T4[0], "7.5")]
    assert found.gpus[0].memory_bytes == A100[2]
    assert (found.cuda_driver, found.cuda) == ("580.82.07", "13.0")
    assert (found.cudnn, found.tensorrt) == ("9.10.2", "10.13.2")
    assert found.cpu_name == "AMD EPYC 7763"
    assert found.memory_bytes == 1000 * 1024
    assert found.devices == ("cuda:0", "cuda:1", "cpu")


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1", [T4[0]]),
        ("1,0", [T4[0], A100[0]]),
        ("", []),
        ("-1", []),
        ("0,7,1", [A100[0]]),
        ("GPU-bbbb", [T4[0]]),
        ("GPU-", []),
        ("MIG-1", [A100[0]]),
        ("MIG-2", []),
        ("nonsense", []),
    ],
)
def test_cuda_visible_devices(tmp_path, visible, names):
    host = make_host(tmp_path, environ={"CUDA_VISIBLE_DEVICES": visible}, libraries=nvidia_libraries(A100, T4))
    assert [gpu.name for gpu in detect(host).gpus] == names


def test_a_driver_that_does_not_start_is_no_gpu(tmp_path):
    broken = {"libnvidia-ml.so.1": FakeNvml((A100,), init=9)}
    assert detect(make_host(tmp_path, libraries=broken)).gpus == ()
    assert detect(make_host(tmp_path, libraries={"libnvidia-ml.so.1": object()})).gpus == ()


def test_the_management_library_is_closed_again(tmp_path):
    nvml = FakeNvml((A100,))
    detect(make_host(tmp_path, libraries={"libnvidia-ml.so.1": nvml}))
    assert nvml.shut_down


def test_cuda_versions_in_words():
    assert [nvidia.version(n) for n in (11040, 12080, 13000)] == ["11.4", "12.8", "13.0"]


@pytest.mark.parametrize(
    ("release", "revision", "chip", "jetpack", "gpu", "capability"),
    [
        ("32", "7.1", "nvidia,tegra210", "4.6", "Tegra X1", "5.3"),
        ("35", "4.1", "nvidia,tegra194", "5.1.2", "Xavier", "7.2"),
        ("35", "6.9", "nvidia,tegra234", "5", "Orin", "8.7"),
        ("36", "4.3", "nvidia,tegra234", "6.2", "Orin", "8.7"),
        ("38", "2.0", "nvidia,tegra264", "7.0", "Thor", "11.0"),
        ("38", "9.0", "nvidia,tegra264", "7", "Thor", "11.0"),
    ],
)
def test_jetson(tmp_path, release, revision, chip, jetpack, gpu, capability):
    write(
        tmp_path,
        {
            "etc/nv_tegra_release": f"# R{release} (release), REVISION: {revision}, GCID: 1, BOARD: generic",
            "proc/device-tree/compatible": f"nvidia,p3737-0000\0{chip}\0",
            "proc/meminfo": "MemTotal: 2048 kB\n",
        },
    )
    found = detect(make_host(tmp_path, machine="aarch64", libraries={"libcuda.so.1": FakeCuda(12060)}))
    assert (found.l4t, found.jetpack) == (f"{release}.{revision}", jetpack)
    assert [(g.name, g.compute_capability, g.memory_bytes) for g in found.gpus] == [(gpu, capability, 2048 * 1024)]
    assert found.cuda == "12.6"


def test_jetson_with_its_gpu_hidden(tmp_path):
    write(
        tmp_path,
        {
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1",
            "proc/device-tree/compatible": "nvidia,tegra234\0",
        },
    )
    assert detect(make_host(tmp_path, environ={"CUDA_VISIBLE_DEVICES": ""})).gpus == ()


def test_raspberry_pi(tmp_path):
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\n",
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        },
    )
    found = detect(make_host(tmp_path, machine="aarch64"))
    assert found.cpu_name == "Raspberry Pi 5 Model B Rev 1.0"
    assert (found.gpus, found.mps, found.l4t, found.devices) == ((), False, None, ("cpu",))


@pytest.mark.parametrize(
    ("chip", "release", "mps"),
    [
        ("arm64", "14.5", True),
        ("arm64", "14.0", True),
        ("arm64", "13.7.4", False),
        ("arm64", "", False),
        ("x86_64", "14.5", False),
    ],
)
def test_macs(tmp_path, chip, release, mps):
    found = detect(make_host(tmp_path, system="darwin", machine=chip, release=release))
    assert found.mps is mps
    assert found.devices == (("mps", "cpu") if mps else ("cpu",))


def test_windows(tmp_path):
    libraries = {"nvml.dll": FakeNvml((T4,)), "nvcuda.dll": FakeCuda(12080)}
    found = detect(make_host(tmp_path, system="windows", machine="AMD64", libraries=libraries))
    assert (found.gpus[0].name, found.cuda) == ("Tesla T4", "12.8")


def test_an_empty_machine(tmp_path):
    found = detect(make_host(tmp_path))
    assert (found.gpus, found.memory_bytes, found.packages, found.cudnn) == ((), None, (), None)


@pytest.mark.parametrize("facts", MACHINES, ids=lambda facts: facts["name"])
def test_the_table_of_machines(facts, tmp_path):
    found = environment_of(facts, tmp_path)
    gpu = found.gpus[0] if found.gpus else None
    special = {
        "gpus": len(found.gpus),
        "torch": found.version("torch"),
        "gpu": gpu and gpu.name,
        "capability": gpu and gpu.compute_capability,
        "damaged": list(found.damaged),
    }
    for name, expected in facts["found"].items():
        value = special[name] if name in special else getattr(found, name)
        assert (value or "" if isinstance(expected, str) else value) == expected, name
    if facts.get("nvml", 0) == 0 and gpu is not None:
        assert [(g.name, g.compute_capability) for g in found.gpus][: len(facts.get("gpus", []))] == [
            (name, capability) for name, capability, _ in facts.get("gpus", [])
        ]
        assert {g.driver for g in found.gpus} == {facts.get("driver")}
    json.dumps(to_dict(found))


def test_why_a_gpu_is_not_seen(tmp_path):
    stopped = {"libnvidia-ml.so.1": FakeNvml((A100,), init=9)}
    assert detect(make_host(tmp_path, libraries=stopped)).gpus_unseen == "driver-stopped"
    mismatch = {"libnvidia-ml.so.1": FakeNvml((A100,), init=18)}
    assert detect(make_host(tmp_path, libraries=mismatch)).gpus_unseen == "driver-mismatch"
    assert detect(make_host(tmp_path, libraries={"libnvidia-ml.so.1": FakeNvml(())})).gpus_unseen is None
    write(tmp_path, {"sys/bus/pci/devices/a/vendor": "0x10de\n", "sys/bus/pci/devices/a/class": "0x040300\n"})
    assert detect(make_host(tmp_path)).gpus_unseen is None  # the card's sound device
    write(tmp_path, {"sys/bus/pci/devices/b/vendor": "0x1002\n", "sys/bus/pci/devices/b/class": "0x030000\n"})
    assert detect(make_host(tmp_path)).gpus_unseen is None  # another maker's card
    write(tmp_path, {"sys/bus/pci/devices/c/vendor": "0x10de\n", "sys/bus/pci/devices/c/class": "0x030000\n"})
    assert detect(make_host(tmp_path)).gpus_unseen == "no-library"


def test_a_jetson_in_a_container_that_hides_its_release(tmp_path):
    write(tmp_path, {"proc/device-tree/compatible": "nvidia,tegra234\0"})
    found = detect(make_host(tmp_path, machine="aarch64", libraries={"libcuda.so.1": FakeCuda(12060)}))
    assert ([gpu.name for gpu in found.gpus], found.l4t) == (["Orin"], None)
    assert detect(make_host(tmp_path, machine="aarch64")).gpus == ()  # no driver either: nothing to run on


def test_libraries_where_the_environment_points(tmp_path):
    write(tmp_path, {"opt/nn/libcudnn.so.9.11": "", "usr/lib64/libcudnn.so.8.9.7.29": ""})
    libraries = nvidia_libraries(A100)
    environ = {"LD_LIBRARY_PATH": ":/opt/nn:/nowhere"}
    assert detect(make_host(tmp_path, environ=environ, libraries=libraries)).cudnn == "9.11"
    assert detect(make_host(tmp_path, libraries=libraries)).cudnn == "8.9.7.29"


# --- containers -------------------------------------------------------------------------------------------------------


def test_container_limits_of_version_2(tmp_path):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "proc/meminfo": "MemTotal: 99999999 kB\n",
            "sys/fs/cgroup/pod/memory.max": "1048576\n",
            "sys/fs/cgroup/pod/box/memory.max": "max\n",
            "sys/fs/cgroup/pod/box/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/cpu.max": "max 100000\n",
        },
    )
    assert machine.cpu_quota(tmp_path) == 2
    assert machine.memory_bytes(tmp_path, "linux") == 1048576


def test_container_limits_of_version_1(tmp_path):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/box\n3:cpu,cpuacct:/box\n",
            "proc/meminfo": "MemTotal: 99999999 kB\n",
            # In a container the group's own folder is not visible; its limits lie at the top.
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2097152\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert machine.cpu_quota(tmp_path) == 1
    assert machine.memory_bytes(tmp_path, "linux") == 2097152


def test_no_quota(tmp_path):
    write(tmp_path, {"proc/self/cgroup": "3:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"})
    assert machine.cpu_quota(tmp_path) is None
    assert machine.cpu_count(tmp_path) >= 1


# --- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "text", "system", "expected"),
    [
        ("2.13.0", "cuda: Optional[str] = '13.0'\nhip = None\n", "linux", "2.13.0+cu130"),
        ("2.13.0+cpu", "cuda: Optional[str] = None\n", "linux", "2.13.0+cpu"),
        ("2.13.0", "cuda = None\nhip = None\n", "windows", "2.13.0+cpu"),
        ("2.13.0", "cuda = None\n", "darwin", "2.13.0"),
        ("2.13.0", "cuda = None\nhip: Optional[str] = '6.4.1'\n", "linux", "2.13.0+rocm6.4.1"),
        ("2.5.0a0+872d972e41.nv24.08", "cuda = '12.6'\n", "linux", "2.5.0a0+872d972e41.nv24.08.cu126"),
    ],
)
def test_the_build_of_torch(tmp_path, version, text, system, expected):
    install(tmp_path / "site", "torch", version, {"torch/version.py": text})
    assert detect(make_host(tmp_path, system=system, site=tmp_path / "site")).version("torch") == expected


def test_which_onnxruntime_is_effective(tmp_path):
    site = tmp_path / "site"
    install(site, "onnxruntime", "1.31.1", {"onnxruntime/capi/build_and_package_info.py": "package_name = 'x'\n"})
    assert detect(make_host(tmp_path, site=site)).onnxruntime == "onnxruntime"
    install(site, "onnxruntime-gpu", "1.31.1")
    write(site, {"onnxruntime/capi/build_and_package_info.py": "package_name = 'onnxruntime'\n"})
    found = detect(make_host(tmp_path, site=site))
    assert found.onnxruntime == "onnxruntime"
    assert found.version("onnxruntime-gpu") == "1.31.1"


def test_an_onnxruntime_whose_files_are_gone(tmp_path):
    site = tmp_path / "site"
    install(site, "onnxruntime-gpu", "1.31.1", {"onnxruntime/__init__.py": ""})
    assert detect(make_host(tmp_path, site=site)).damaged == ()
    (site / "onnxruntime/__init__.py").unlink()
    assert detect(make_host(tmp_path, site=site)).damaged == ("onnxruntime-gpu",)


def test_tensorrt_and_cudnn_from_distributions(tmp_path):
    install(tmp_path / "site", "tensorrt-cu13", "10.14.1")
    install(tmp_path / "site", "nvidia-cudnn-cu13", "9.13.0")
    found = detect(make_host(tmp_path, site=tmp_path / "site"))
    assert (found.tensorrt, found.cudnn) == ("10.14.1", "9.13.0")


def test_missing_libraries_are_no_error():
    assert nvidia.load_library("libnothing-of-this-name.so.7") is None


def test_the_layout_of_windows_memory_status():
    # MEMORYSTATUSEX is 64 bytes, and Windows refuses any other length.
    assert ctypes.sizeof(machine._MemoryStatus) == 64
