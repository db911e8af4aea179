"""What the server counts and times, for Prometheus. Labels take known values only, so that no client can add series."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = self.registry
        self.requests = Counter(
            "lensmount_requests", "Requests answered.", ("route", "method", "status"), registry=made
        )
        self.seconds = Histogram(
            "lensmount_request_seconds", "From a request's head to its answer.", ("route",), buckets=_SECONDS,
            registry=made,
        )  # fmt: skip
        self.stages = Histogram(
            "lensmount_stage_seconds", "Stages: decode, wait, run (the model's call), encode.", ("stage", "model"),
            buckets=_SECONDS, registry=made,
        )  # fmt: skip
        self.batches = Histogram(
            "lensmount_batch_pictures", "Pictures in one run.", ("model",), buckets=_SIZES, registry=made
        )
        self.refused = Counter("lensmount_refused", "Requests refused: full, late, key, size.", ("why",), registry=made)
        self.held = Gauge("lensmount_requests_held", "Requests being answered.", registry=made)
        self.models = Gauge("lensmount_models_loaded", "Models held.", registry=made)
        self.loads = Histogram(
            "lensmount_model_load_seconds", "Loading and the first run of a model.", ("outcome",), buckets=_SECONDS,
            registry=made,
        )  # fmt: skip

    def stage(self, name: str, model: str, seconds: float) -> None:
        """Records how long a stage of a request took."""
        self.stages.labels(name, model).observe(seconds)

    def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
