"""What every loaded model has: its card, where and in what precision it runs, and an end."""

from __future__ import annotations

import functools
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from lensmount.errors import ClosedError, InputError, UnsupportedModelError
from lensmount.specs.logs import log
from lensmount.specs.options import check_names
from lensmount.store import path_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from lensmount.contracts.session import Session
    from lensmount.specs import ModelCard, ModelPackage, Preprocess
    from lensmount_vision.images.image import Color, Image

T = TypeVar("T")


class NotPicklableError(InputError, TypeError):
    """A model, or what follows from one, cannot go to another process; what would make it there can."""


class LoadedModel(ABC):
    """A model that `registry.load` made; it keeps the promises of `lensmount.contracts.model.Model`.

    Args:
        card: The model's card.
        package: The package that runs.
        runs: What runs it, a session or the model that it stands on; closed with it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in list(vars(cls).items()):
            if isinstance(method, FunctionType) and (name == "__call__" or not name.startswith("_")):
                setattr(cls, name, refusing(method))

    def __init__(self, card: ModelCard, package: ModelPackage, runs: Session | LoadedModel) -> None:
        self._card = card
        self._package = package
        self._runs = runs
        self._closed = False

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self._card

    @property
    def package(self) -> ModelPackage:
        """The package that runs."""
        return self._package

    @property
    def backend(self) -> str:
        """Name of the backend that it runs on."""
        return self._runs.backend

    @property
    def device(self) -> str:
        """Device that it effectively runs on."""
        return self._runs.device

    @property
    def precision(self) -> str:
        """Precision that it effectively computes in."""
        return self._runs.precision

    @property
    def provider(self) -> str:
        """The runtime's own word for what executes the network."""
        return self._runs.provider

    @property
    def reduced_for(self) -> Preprocess | None:
        """What `lensmount_vision.images.loading.load` takes as `reduced_for`; None where JPEGs are decoded in full."""
        return None

    @property
    def picture_channels(self) -> int:
        """What `lensmount_vision.images.loading.load` takes as `channels`: those of the network's input."""
        return 3

    def load_images(self, images: Any, color: Color | None = None) -> list[Image]:
        """Turns whatever the caller passed into pictures; see `lensmount_vision.images.loading.load_many`.

        Raises:
            ImageError: A picture cannot be used.
            ClosedError: The model was closed.
        """
        from lensmount_vision.images.loading import load_many

        self.check_open()
        return load_many(images, color=color, reduced_for=self.reduced_for, channels=self.picture_channels)

    @abstractmethod
    def warmup(self) -> None:
        """Runs every network once on a blank input, so that the first real call is not the slow one."""

    def check_open(self) -> None:
        """Raises `ClosedError` once the model was closed."""
        if self._closed:
            raise closed_error(self._card.id)

    def close(self) -> None:
        """Frees what runs the model; later calls raise `ClosedError`."""
        if not self._closed:
            log("models", "info", "closed %s on %s, %s", self._card.id, self.backend, self.device)
        self._closed = True
        self._runs.close()

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            f"model {self._card.id!r} cannot be pickled or copied: it holds a runtime's session",
            found=repr(self),
            expected=f"its specification: {specification(self)!r}",
            fix="give it to the worker with the options that you gave, and load there: registry.load(**specification)",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self._card.id} {self._card.task} on {self.backend} {self.device} {self.precision}>"


def refusing(method: Callable[..., T]) -> Callable[..., T]:
    """The method of a model, refusing options that it does not have as `lensmount.specs.options.check_names` does.

    Python's own `TypeError` would say neither what there is nor what another library's word (`conf`) is called here.
    One that has no options, or takes any and checks them itself, is returned as it is.
    """
    parameters = inspect.signature(method).parameters.values()
    if not any(p.kind is p.KEYWORD_ONLY for p in parameters) or any(p.kind is p.VAR_KEYWORD for p in parameters):
        return method
    known = tuple(p.name for p in list(parameters)[1:] if p.kind is not p.VAR_POSITIONAL)
    called = "a call" if method.__name__ == "__call__" else method.__name__

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **options: Any) -> T:
        if not options.keys() <= allowed:
            check_names(options, known, f"{called} of {getattr(getattr(self, 'card', None), 'id', self)!r}")
        return method(self, *args, **options)

    allowed = frozenset(known)
    return checked


def specification(model: Any) -> dict[str, str]:
    """What `registry.load` takes to load a model again; options of the family are for the caller to add."""
    uris = [artifact.uri for artifact in model.package.artifacts]
    given = model.card.id
    if all(uri.startswith("file://") for uri in uris):  # a file, or a folder of several
        given = os.path.commonpath([path_of(uri) for uri in uris])
    return {
        "id_or_path": given,
        "backend": model.backend,
        "device": model.device,
        "precision": model.precision,
    }


def closed_error(model_id: str) -> ClosedError:
    """The error of a call on a model that was closed."""
    return ClosedError(f"model {model_id!r} was closed", fix="load it again")


def class_of_task(card: ModelCard, classes: Mapping[str, T], family: str) -> T:
    """Chooses what a factory makes.

    Args:
        card: The model's card.
        classes: A model class by task.
        family: Name of the models, for the message.

    Raises:
        UnsupportedModelError: None of them is of the card's task.
    """
    kind = classes.get(card.task)
    if kind is None:
        raise UnsupportedModelError(
            f"{card.id!r} has a task that {family} models here do not have",
            found=card.task,
            expected=", ".join(classes),
        )
    return kind
