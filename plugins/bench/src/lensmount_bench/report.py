"""What a benchmark found: plain values, and text for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Summary:
    """Of some times, in milliseconds."""

    p50: float
    p95: float
    p99: float
    least: float
    most: float
    count: int


def summarise(times: Sequence[float]) -> Summary:
    """Percentiles by linear interpolation between the two nearest times, as numpy's default.

    Raises:
        ValueError: No times.
    """
    ordered = sorted(times)
    if not ordered:
        raise ValueError("there are no times to summarise")

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    return Summary(at(0.5), at(0.95), at(0.99), ordered[0], ordered[-1], len(ordered))


@dataclass(frozen=True, slots=True)
class Variant:
    """What is measured: a model on a backend, in a precision, with a batch size; one package and device, if named."""

    model: str
    backend: str | None = None
    precision: str | None = None
    batch: int = 1
    threads: int | None = None
    concurrency: int = 1
    package: str | None = None
    device: str | None = None

    @property
    def label(self) -> str:
        """One line for people."""
        name = self.model.replace("\\", "/").rsplit("/", 1)[-1] if self.model.startswith(("/", ".")) else self.model
        words = [name, self.package or "", self.backend or "", self.device or "", self.precision or ""]
        words.append(f"batch {self.batch}" if self.batch > 1 else "")
        return " ".join(word for word in words if word)


@dataclass(slots=True)
class VariantReport:
    """Numbers of one variant. Times are in milliseconds per call (of `batch` pictures) where not said otherwise.

    Attributes:
        variant: What was asked for.
        error: Why it could not be measured; None when it was.
        effective: `backend`, `device`, `precision`, `provider`, `id`, `task` as they turned out.
        cold: Phases of a cold start: `python` (until our first line runs), `import`, `find` (plugins, card, choice),
            `fetch` (and verify), `open` (runtime and session), `first result`, and `total`.
        call: Whole calls, from encoded pictures to results.
        stages: `decode`, `preprocess`, `network` (transfers to and from a GPU included), `postprocess`.
        images_per_second: Of plain calls; median over the rounds.
        stream_images_per_second: Of `model.stream` over the same pictures.
        cpu_ms_per_image: CPU time of all threads, plain calls.
        rss_loaded: Resident memory after the first result, bytes.
        rss_peak: Its peak, bytes.
        device_memory: What the GPUs' memory in use grew by, at most, bytes.
        round_medians: Median call of every round, in their order.
        spread: (slowest - quickest) / median of the rounds' medians.
    """

    variant: Variant
    error: str | None = None
    effective: dict[str, Any] = field(default_factory=dict)
    cold: dict[str, Summary] = field(default_factory=dict)
    call: Summary | None = None
    stages: dict[str, Summary] = field(default_factory=dict)
    images_per_second: float = 0.0
    stream_images_per_second: float = 0.0
    cpu_ms_per_image: float = 0.0
    rss_loaded: int | None = None
    rss_peak: int | None = None
    device_memory: int | None = None
    round_medians: list[float] = field(default_factory=list)
    spread: float = 0.0
    _starts: list[dict[str, float]] = field(default_factory=list, repr=False)
    _rounds: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def take_start(self, answer: dict[str, Any]) -> None:
        """Notes a cold start."""
        self.error = answer.get("error")
        if self.error is None:
            self._starts.append(answer.pop("cold"))
            self.rss_loaded = answer.pop("rss_loaded")
            self.effective = answer

    def take_round(self, answer: dict[str, Any]) -> None:
        """Notes a round."""
        self.error = answer.get("error")
        if self.error is None:
            self._rounds.append(answer)

    def finish(self) -> None:
        """Makes the numbers of what was noted."""
        if self._starts:
            self.cold = {name: summarise([start[name] for start in self._starts]) for name in self._starts[0]}
        if self.error is not None or not self._rounds:
            return
        rounds = self._rounds
        self.call = summarise([value for r in rounds for value in r["call"]])
        self.stages = {
            name: summarise([value for r in rounds for value in r["stages"][name]]) for name in rounds[0]["stages"]
        }
        self.round_medians = [statistics.median(r["call"]) for r in rounds]
        middle = statistics.median(self.round_medians)
        self.spread = (max(self.round_medians) - min(self.round_medians)) / middle
        self.images_per_second = statistics.median(r["images"] / r["wall"] for r in rounds)
        self.stream_images_per_second = statistics.median(r["stream"] for r in rounds)  # 0 where it was not measured
        self.cpu_ms_per_image = statistics.median(1e3 * r["cpu"] / r["images"] for r in rounds)
        self.rss_peak = max((r["rss_peak"] for r in rounds if r["rss_peak"] is not None), default=None)
        self.device_memory = max((r["device_memory"] for r in rounds if r["device_memory"] is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One variant compared with the first.

    Attributes:
        label: Which variant.
        ratio: Its time per image / the first's, median over the turns; below 1 is faster.
        least: Least ratio of a turn.
        most: Greatest ratio of a turn.
    """

    label: str
    ratio: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What `lensmount_bench.harness.run` found.

    Attributes:
        variants: In the order asked for.
        machine: What the numbers depend on; see `lensmount_bench.machine.fingerprint`.
        warnings: Why the numbers may not be repeatable.
        source: What it was measured on.
        rounds: Turns that each variant took.
    """

    variants: tuple[VariantReport, ...]
    machine: dict[str, Any]
    warnings: tuple[str, ...]
    source: str
    rounds: int

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every variant that ran, compared with the first that did."""
        ran = [report for report in self.variants if report.error is None and report.round_medians]
        found = []
        for other in ran[1:]:
            pairs = zip(other.round_medians, ran[0].round_medians, strict=True)
            ratios = [(b / other.variant.batch) / (a / ran[0].variant.batch) for b, a in pairs]
            found.append(Comparison(other.variant.label, statistics.median(ratios), min(ratios), max(ratios)))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            "machine": self.machine,
            "warnings": list(self.warnings),
            "source": self.source,
            "rounds": self.rounds,
            "variants": [report.to_dict() for report in self.variants],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        lines = [describe_machine(self.machine)]
        for report in self.variants:
            lines.append(report.variant.label)
            if report.error is not None or report.call is None:
                lines.append(f"  not measured: {report.error}")
                continue
            lines.append(f"  cold start  {'  '.join(f'{n} {s.p50:.0f}' for n, s in report.cold.items())} ms")
            lines.append(f"  call        {_tail(report.call)}")
            lines += [f"  {name:<11} {_tail(summary)}" for name, summary in report.stages.items()]
            lines.append(
                f"  images/s    {report.images_per_second:.1f}, {report.stream_images_per_second:.1f} streamed"
            )
            lines.append(f"  CPU         {report.cpu_ms_per_image:.1f} ms per image")
            lines.append(f"  memory      {(report.rss_peak or 0) / 2**20:.0f} MiB at the peak")
        lines += [
            f"{c.label}: {c.ratio:.3f} of the first's time ({c.least:.3f} to {c.most:.3f})" for c in self.comparisons
        ]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)


def _tail(summary: Summary) -> str:
    return f"p50 {summary.p50:.2f}  p95 {summary.p95:.2f}  p99 {summary.p99:.2f} ms  ({summary.count} calls)"


def describe_machine(machine: dict[str, Any]) -> str:
    """The fingerprint in one line."""
    packages = machine["packages"]
    wanted = ("lensmount", "onnxruntime", "onnxruntime-gpu", "torch", "tensorrt", "numpy", "opencv-python-headless")
    versions = [f"{name} {packages[name]}" for name in wanted if name in packages]
    parts = [machine["cpu"] or machine["machine"], f"{machine['cores']} cores", *machine["gpus"], machine["system"]]
    return ", ".join([*parts, f"Python {machine['python']}", *versions])
