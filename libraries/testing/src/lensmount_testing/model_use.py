"""What a model promises of its loading, its use and its end."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from lensmount.contracts.model import Model
from lensmount.errors import ClosedError, OptionError
from lensmount.specs import ModelCard, ModelPackage
from lensmount_testing.comparing import require_same
from lensmount_testing.guards import forbidden
from lensmount_testing.model_base import LoadModel, ModelBase
from lensmount_testing.pictures import Picture

_WRONG: Mapping[str, tuple[Any, ...]] = {
    "confidence": (1.5, -0.1, float("nan"), "high"),
    "iou_threshold": (1.5, -0.1, float("nan"), "high"),
    "max_detections": (0, -3, 1.5, "many"),
    "color": ("gbr", 3),
}


class ModelUse(ModelBase):
    """Tests of a model's life."""

    def test_has_what_models_have(self, model: Any) -> None:
        """It has card, package, backend, device and precision, as the types that they are."""
        assert isinstance(model, Model), f"{type(model).__name__} lacks something of lensmount.contracts.model.Model"
        assert isinstance(model.card, ModelCard) and isinstance(model.package, ModelPackage), "card or package is none"
        assert model.package in model.card.packages, "the package is not one of the card's"
        for name in ("backend", "device", "precision"):
            value = getattr(model, name)
            assert isinstance(value, str) and value, f"{name} is {value!r}, not a word"

    def test_describe_and_explain(self, model: Any, registry: Any, model_name: Any) -> None:
        """`describe` gives its card, and `explain` a plan that chooses one of its packages."""
        card = registry.describe(model_name)
        assert (card.id, card.architecture, card.task) == (model.card.id, model.card.architecture, model.card.task)
        plan = registry.explain(model_name)
        assert plan.selected is not None, f"no package can run here:\n{plan}"
        assert str(plan), "the plan says nothing"

    def test_warms_up(self, model: Any, picture: Picture) -> None:
        """`warmup` runs, and changes no later answer."""
        before = self.results(model, picture)
        model.warmup()
        require_same(self.results(model, picture), before, self.tolerance, "before and after warmup")

    def test_refuses_unknown_options(self, model: Any, load_model: LoadModel, picture: Picture) -> None:
        """A misspelt option, of a call or of a load, is a `TypeError`."""
        with pytest.raises(TypeError):
            self.call(model, picture, confidense_misspelt=0.5)
        with pytest.raises(TypeError):
            load_model(thread_misspelt=2)

    def test_checks_option_values(self, model: Any, picture: Picture) -> None:
        """Values that mean nothing are an `OptionError`: thresholds outside 0..1, no detections, no such colour."""
        known = inspect.signature(model.__call__).parameters
        assert "color" in known, "its call has no option `color`: arrays may come as RGB"
        for name, values in _WRONG.items():
            for value in values if name in known else ():
                try:
                    self.call(model, picture, **{name: value})
                except OptionError:
                    continue
                pytest.fail(f"{name}={value!r} is taken without an OptionError")

    def test_same_again(self, model: Any, picture: Picture) -> None:
        """The same picture gives the same again, whatever was asked in between."""
        first = self.results(model, picture)
        self.results(model, picture[::-1].copy())
        require_same(self.results(model, picture), first, self.tolerance, "the first and a later call")

    def test_threads(self, model: Any, picture: Picture) -> None:
        """Four threads that call one model at once get what they would get one after the other."""
        pictures = [picture, picture[:, ::-1].copy(), picture[::-1].copy(), 255 - picture]
        wanted = [self.results(model, item) for item in pictures]
        begin = threading.Barrier(4)

        def work(index: int) -> list[list[Any]]:
            begin.wait(timeout=60)
            return [self.results(model, pictures[index]) for _ in range(3)]

        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(work, index) for index in range(4)]
            for index, run in enumerate(runs):
                for found in run.result(timeout=600):
                    require_same(found, wanted[index], self.tolerance, "in a thread among others and alone")

    def test_opens_no_socket(self, model: Any, load_model: LoadModel, picture: Picture) -> None:
        """With its files here, it loads offline and runs without a socket."""
        with forbidden("socket", saying="a model whose files are here opens a socket"):
            found = self.results(load_model(offline=True), picture)
        require_same(found, self.results(model, picture), self.tolerance, "offline and before")

    def test_starts_no_process_and_writes_nothing(self, model: Any, picture: Picture) -> None:
        """A call is arithmetic: it starts no program and alters no file."""
        self.results(model, picture)  # what is imported or compiled at the first call is there now
        with forbidden("process", "write", saying="a call does more than compute"):
            self.results(model, picture)

    def test_closes(self, load_model: LoadModel, picture: Picture) -> None:
        """After `close` a call is a `ClosedError`; closing again does nothing."""
        model = load_model()
        self.results(model, picture)
        model.close()
        model.close()
        with pytest.raises(ClosedError):
            self.call(model, picture)

    def test_models_are_apart(self, model: Any, load_model: LoadModel, picture: Picture) -> None:
        """Two models loaded from one name share no state: one answers after the other was closed."""
        wanted = self.results(model, picture)
        other = load_model()
        require_same(self.results(other, picture), wanted, self.tolerance, "two models of one name")
        other.close()
        require_same(self.results(model, picture), wanted, self.tolerance, "before and after the other was closed")

    def test_backends_agree(
        self,
        model: Any,
        registry: Any,
        load_model: LoadModel,
        request: pytest.FixtureRequest,
        picture: Picture,
    ) -> None:
        """Every backend named in `backends` gives the same results from the same pictures, to `parity`."""
        if not self.backends:
            pytest.skip("name `backends` that have to agree")
        names = request.getfixturevalue("model_names")
        usable = {backend.name: status for backend, status in registry.backends()}
        pictures = [picture, np.ascontiguousarray(picture[:, ::-1])]
        wanted = self.results(model, pictures)
        for backend in self.backends:
            status = usable.get(backend)
            if status is not None and not status.usable:
                pytest.skip(f"backend {backend!r} cannot run here: {status.reason} ({status.fix})")
            other = load_model(names[backend], backend=backend)
            assert other.backend == backend, f"backend {backend!r} was asked for, it runs on {other.backend!r}"
            found = self.results(other, pictures)
            require_same(found, wanted, self.parity, f"backends {backend} and {model.backend}")
