"""What a backend promises of its probe and its sessions; docs/conformance.md says why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmount.contracts.session import BackendOptions, OpenRequest, Session
from lensmount.errors import BackendError, ClosedError, DeviceError, ModelFileError, OptionError
from lensmount.specs import Backend, BackendStatus
from lensmount_testing import probing
from lensmount_testing.backend_base import BackendBase, Open
from lensmount_testing.graphs import GRAPHS, unknown_operator

_PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_COMPUTING = ("scale", "convolution", "float16", "uint8", "int64", "pair")


class BackendContract(BackendBase):
    """Tests of one backend. Subclass it as `Test…` in a test module.

    Graphs come as ONNX files where the backend opens format `onnx`, and as torch networks where it opens `torch`. For
    another format, override `request`.

    Attributes:
        backend: Name that the backend is registered under.
        device: Device to test on.
        precision: Precision to ask for.
        dtypes: Dtypes of inputs that it takes.
        absolute: Largest difference from numpy, for values of about 1 in float32; float16 may differ by 0.004.
        light_modules: Top-level modules that its probe may import in addition to those of
            `lensmount_testing.probing.LIGHT`.
    """

    # --- the probe ----------------------------------------------------------------------------------------------------

    def test_probe_answers(self, probe: Callable[..., Any]) -> None:
        """It says where it can run, in which precisions, or why it cannot and what would mend that."""
        from lensmount.machine.environment import detect

        status = probe(detect())
        assert isinstance(status, BackendStatus), f"the probe gives {type(status).__name__}, not BackendStatus"
        if not status.usable:
            assert status.reason and status.fix, "the probe says no, and not why, or not what to do about it"
            return
        assert self.device in status.devices, f"the probe knows no device {self.device!r}: {status.devices}"
        assert status.version, "the probe does not know the version of its runtime"
        kinds = {kind for kind, _ in status.precisions}
        assert self.device.partition(":")[0] in kinds, f"the probe names no precisions of {self.device}"

    def test_probe_answers_anywhere(self, probe: Callable[..., Any]) -> None:
        """On a machine with nothing installed it answers too; if with no, then with reason and remedy."""
        from lensmount.machine.environment import Environment

        status = probe(Environment())
        assert isinstance(status, BackendStatus), f"the probe gives {type(status).__name__}, not BackendStatus"
        assert status.usable or (status.reason and status.fix), "the probe says no, and not why, or not what to do"

    def test_probe_is_light(self, descriptor: Backend) -> None:
        """It reads metadata and files: no runtime is imported, no socket opened, no process started."""
        seen = probing.see(probe=descriptor.probe)
        assert seen.error is None, f"the probe fails in a fresh process: {seen.error}"
        own = {descriptor.probe.partition(":")[0].partition(".")[0], *self.light_modules}
        foreign = seen.foreign(own)
        assert not foreign, f"the probe imports {', '.join(foreign)}"
        done = [*seen.sockets, *seen.writes, *seen.processes]
        assert not done, f"the probe does more than read: {done[0]}"

    # --- opening ------------------------------------------------------------------------------------------------------

    def test_is_a_session(self, open_graph: Open, descriptor: Backend) -> None:
        """What it opens has all that a session has, and says which backend it is of."""
        session = open_graph("scale")
        assert isinstance(session, Session), f"{type(session).__name__} lacks something of lensmount.contracts.Session"
        assert session.backend == descriptor.name, f"the session says that it is of backend {session.backend!r}"

    @pytest.mark.parametrize("name", GRAPHS)
    def test_names_and_types(self, open_graph: Open, name: str) -> None:
        """Inputs and outputs have the graph's names, dtypes and sizes, in the graph's order; dynamic ones no number."""
        self.require_dtype(GRAPHS[name])
        session = open_graph(name)
        for what, found, wanted in (
            ("inputs", session.inputs, GRAPHS[name].inputs),
            ("outputs", session.outputs, GRAPHS[name].outputs),
        ):
            assert [spec.name for spec in found] == [spec.name for spec in wanted], f"{what} have other names or order"
            for spec, other in zip(found, wanted, strict=True):
                self.require_spec(spec, other, what)

    def test_reads_back_what_is_effective(self, open_graph: Open) -> None:
        """Device and precision are told as they are, and the runtime says its own word for what executes."""
        session = open_graph("convolution")
        assert session.device == self.device, f"asked for {self.device}, the session says {session.device!r}"
        assert session.precision == self.precision, f"asked for {self.precision}, it says {session.precision!r}"
        assert session.precision in _PRECISIONS
        assert isinstance(session.provider, str) and session.provider, "the session does not say what executes it"

    def test_metadata(self, open_graph: Open) -> None:
        """Texts that the file embeds are there, as texts; none where it has none."""
        assert dict(open_graph("scale").metadata) == dict(GRAPHS["scale"].metadata), "the graph's metadata are lost"
        assert dict(open_graph("pair").metadata) == {}, "a graph without metadata has some"

    @pytest.mark.parametrize("kind", ["empty", "noise", "cut", "operator", "missing", "folder"])
    def test_refuses_damaged_files(
        self, opener: Callable[[OpenRequest], Any], descriptor: Backend, tmp_path: Path, kind: str
    ) -> None:
        """A file that is no sound graph is a `ModelFileError` when it is opened, not when it is run."""
        request = self.request(descriptor, GRAPHS["scale"], tmp_path)
        if request.path is None:
            pytest.skip("it opens no files")
        path = tmp_path / f"{kind}.onnx"
        whole = request.path.read_bytes()
        if kind == "folder":
            path.mkdir()
        elif kind != "missing":
            noise = np.random.default_rng(1).bytes(300)
            content = {"empty": b"", "noise": noise, "cut": whole[: len(whole) // 2], "operator": unknown_operator()}
            path.write_bytes(content[kind])
        with pytest.raises(ModelFileError):
            opener(self.request(descriptor, GRAPHS["scale"], tmp_path, path=path))

    def test_needs_something_to_open(
        self, opener: Callable[[OpenRequest], Any], descriptor: Backend, tmp_path: Path
    ) -> None:
        """A request without file and network is a `ModelFileError`."""
        with pytest.raises(ModelFileError):
            opener(self.request(descriptor, GRAPHS["scale"], tmp_path, path=None, network=None))

    @pytest.mark.parametrize("device", ["cuda:63", "no such device", "tape:0"])
    def test_refuses_unknown_devices(self, open_graph: Open, device: str) -> None:
        """A device that is not there is a `DeviceError`, never another device."""
        with pytest.raises(DeviceError):
            open_graph("scale", device=device)

    def test_takes_threads(self, open_graph: Open) -> None:
        """`threads` is taken, and numbers that mean nothing are refused as `OptionError`."""
        session = open_graph("convolution", options=BackendOptions(threads=1))
        self.require_right(session, GRAPHS["convolution"])
        for wrong in (0, -1, "two"):
            with pytest.raises(OptionError):
                open_graph("scale", options=BackendOptions(threads=wrong))  # type: ignore[arg-type]

    # --- running ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", _COMPUTING)
    def test_computes_what_numpy_does(self, open_graph: Open, name: str) -> None:
        """Outputs are numpy arrays of the declared dtype, with the numbers that numpy gets."""
        self.require_dtype(GRAPHS[name])
        self.require_right(open_graph(name), GRAPHS[name])

    @pytest.mark.parametrize("batch", [1, 2, 5])
    def test_dynamic_batch(self, open_graph: Open, batch: int) -> None:
        """A dynamic axis takes any size, one after the other."""
        session = open_graph("scale")
        self.require_right(session, GRAPHS["scale"], batch=3)
        self.require_right(session, GRAPHS["scale"], batch=batch)

    def test_static_batch(self, open_graph: Open) -> None:
        """A fixed axis takes its size and refuses every other as `BackendError`."""
        session = open_graph("static")
        self.require_right(session, GRAPHS["static"])
        with pytest.raises(BackendError):
            session.run({"images": np.zeros((3, 3, 8, 8), np.float32)})

    @pytest.mark.parametrize("kind", ["missing", "surplus", "misspelt", "dtype", "wider", "rank", "size", "list"])
    def test_refuses_wrong_feeds(self, open_graph: Open, kind: str) -> None:
        """A wrong name, dtype or shape, or what is no array, is a `BackendError`; nothing is cast or broadcast."""
        session = open_graph("pair")
        good = GRAPHS["pair"].feeds()
        wrong: dict[str, dict[str, Any]] = {
            "missing": {"left": good["left"]},
            "surplus": {**good, "more": good["left"]},
            "misspelt": {"left": good["left"], "Right": good["right"]},
            "dtype": {**good, "left": np.ones((2, 4), np.int64)},
            "wider": {**good, "left": good["left"].astype(np.float64)},
            "rank": {**good, "left": good["left"][0]},
            "size": {**good, "left": good["left"][:, :3]},
            "list": {**good, "left": good["left"].tolist()},
        }
        with pytest.raises(BackendError):
            session.run(wrong[kind])
        self.require_right(session, GRAPHS["pair"])

    def test_failing_runs_are_typed(self, open_graph: Open) -> None:
        """What fails inside the runtime is a `BackendError`, and the session goes on working."""
        session = open_graph("mismatch")
        with pytest.raises(BackendError):
            session.run({"left": np.ones(3, np.float32), "right": np.ones(2, np.float32)})
        self.require_right(session, GRAPHS["mismatch"])

    @pytest.mark.parametrize("layout", ["read-only", "strided", "reversed", "transposed"])
    def test_takes_any_memory_layout(self, open_graph: Open, layout: str) -> None:
        """Views, and arrays that may not be written to, are taken as they are."""
        feeds = GRAPHS["identity"].feeds(batch=6)
        plain = feeds["values"]
        plain.flags.writeable = False
        views = {
            "read-only": plain,
            "strided": plain[::2],
            "reversed": plain[:, ::-1],
            "transposed": np.asfortranarray(plain),
        }
        found = open_graph("identity").run({"values": views[layout]})["same"]
        np.testing.assert_allclose(found, views[layout], atol=self.absolute)

    def test_leaves_inputs_alone(self, open_graph: Open) -> None:
        """Running changes nothing of what was fed."""
        for name in ("scale", "pair"):
            feeds = GRAPHS[name].feeds()
            before = {key: array.copy() for key, array in feeds.items()}
            open_graph(name).run(feeds)
            for key, array in feeds.items():
                np.testing.assert_array_equal(array, before[key], err_msg=f"input {key!r} was written to")

    def test_outputs_belong_to_the_caller(self, open_graph: Open) -> None:
        """An output shares no memory with inputs, weights or later outputs: keep it, or write into it."""
        session, graph = open_graph("identity"), GRAPHS["identity"]
        feeds = graph.feeds()
        first = session.run(feeds)["same"]
        assert not np.shares_memory(first, feeds["values"]), "an output is the input's own memory"
        kept = first.copy()
        session.run(graph.feeds(seed=1))
        np.testing.assert_array_equal(first, kept, err_msg="a later run overwrote an earlier output")
        session, graph = open_graph("weights"), GRAPHS["weights"]
        table = session.run(graph.feeds())["table"]
        if table.flags.writeable:
            table[...] = 0
        self.require_right(session, graph)

    def test_threads(self, open_graph: Open) -> None:
        """Eight threads run one session at once, and each gets its own answers."""
        session, graph = open_graph("convolution"), GRAPHS["convolution"]
        begin = threading.Barrier(8)

        def work(seed: int) -> None:
            begin.wait(timeout=60)
            for step in range(20):
                self.require_right(session, graph, batch=1 + step % 3, seed=seed * 100 + step)

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, seed) for seed in range(8)]:
                done.result(timeout=300)

    # --- closing ------------------------------------------------------------------------------------------------------

    def test_closes(self, open_graph: Open) -> None:
        """After `close` a run is a `ClosedError`; closing again does nothing; other sessions go on."""
        session, other = open_graph("scale"), open_graph("scale")
        session.run(GRAPHS["scale"].feeds())
        session.close()
        session.close()
        with pytest.raises(ClosedError):
            session.run(GRAPHS["scale"].feeds())
        self.require_right(other, GRAPHS["scale"])
