"""Networks that overflow: pictures whose outputs hold NaN or infinity give an error, the others their results.

Host arrays are looked at before anything is made of them. Of tensors the look is queued on their device, and comes to
the host with the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any, TypeVar

from lensmount.backend.tensors import is_tensor
from lensmount.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_vision.images.geometry import Geometry

R = TypeVar("R")
Make = Callable[[Any, list[Any], list[Any]], Sequence[R]]
OVERFLOW = "load it with precision='bf16' or precision='fp32': fp16 ends at 65504"
OTHERWISE = "check the weights and how they were exported; another backend may do better: lensmount explain MODEL"


class NotFiniteError(BackendError):
    """A network gave NaN, infinity or boxes turned inside out for some of the pictures; `results` has the others.

    Attributes:
        results: One entry per picture of the call, None for those that failed.
        faults: What was found, by place of the picture in the call.
        errors: One error for each of them.
    """

    results: list[Any]
    faults: dict[int, str]
    errors: dict[int, NotFiniteError]


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands in the place of a result that cannot be made of what the network gave.

    Attributes:
        why: What was found.
    """

    why: str


class _Checked(dict[str, Any]):
    """Outputs that were looked at: whoever gets them from here need not do it again."""


def not_finite(
    model: Any,
    faults: Mapping[int, str],
    results: Sequence[Any] = (),
    names: Mapping[int, str | None] | None = None,
    of: str = "picture",
) -> NotFiniteError:
    """The error of pictures (or texts) that a network gave no numbers for.

    Args:
        model: Has `card`, `package`, `backend`, `device` and `precision`.
        faults: What was found, by place.
        results: Those of the others, None in the places of `faults`.
        names: Path of a picture by its place.
        of: What the places count.
    """
    names = names or {}
    errors = {i: _one(model, {i: why}, names, of) for i, why in faults.items()}
    error = _one(model, faults, names, of) if len(faults) != 1 else next(iter(errors.values()))
    error.results, error.errors = list(results), errors
    return error


def _one(model: Any, faults: Mapping[int, str], names: Mapping[int, str | None], of: str) -> NotFiniteError:
    places = [f"{i} ({names[i]})" if names.get(i) else str(i) for i in sorted(faults)]
    shown = ", ".join(places[:5]) + (f" and {len(places) - 5} more" if len(places) > 5 else "")
    made = NotFiniteError(
        f"the network of {model.card.id!r} gave numbers that cannot be used for {of} {shown}",
        found=f"{faults[min(faults)]}; package {model.package.name!r} on backend {model.backend}, {model.device}, "
        f"{model.precision}",
        expected="finite numbers",
        fix=OVERFLOW if model.precision == "fp16" else OTHERWISE,
    )
    made.results, made.faults, made.errors = [], dict(faults), {}
    return made


def bad_rows(raw: Mapping[str, Any], count: int) -> dict[int, str]:
    """Rows of outputs that are not finite, and in which output.

    Args:
        raw: Outputs by name, arrays or tensors; one whose first dimension is not `count` is of all rows.
        count: Rows.
    """
    return _Look(raw, count)()


class _Look:
    """Whether outputs are finite; of tensors it is queued when this is made, and waited for when it is called."""

    def __init__(self, raw: Mapping[str, Any], count: int) -> None:
        self._raw = {
            name: value.reshape(len(value), -1) if len(value) == count else value[None]
            for name, value in raw.items()
            if count and value.ndim and (value.is_floating_point() if is_tensor(value) else value.dtype.kind == "f")
        }
        self._count = count
        tensors = [value for value in self._raw.values() if is_tensor(value)]
        self._passenger: Any = None
        if tensors:
            from lensmount_vision.images.torch_streams import Passenger

            self._passenger = Passenger(reduce(and_, map(_finite, tensors)))

    @property
    def later(self) -> bool:
        """Whether there is something to wait for."""
        return self._passenger is not None

    def __call__(self) -> dict[int, str]:
        """What is wrong, by row."""
        if self._passenger is not None and self._passenger.read().all() and all(map(is_tensor, self._raw.values())):
            return {}
        return _read([(name, _finite(value)) for name, value in self._raw.items()], self._count)


def _finite(table: Any) -> Any:
    """`(rows,)` bool of `(rows, …)`."""
    if is_tensor(table):
        return table.flatten(1).isfinite().all(1)
    import numpy as np

    if table.dtype.itemsize < 4:  # sums in half precision overflow by themselves, and are slow
        return np.array([bool(np.isfinite(row).all()) for row in table])
    with np.errstate(over="ignore", invalid="ignore"):
        rows = table.reshape(len(table), -1)
        sums = np.array([np.add.reduce(row) for row in rows])  # one pass without a table of flags
    finite: NDArray[np.bool_] = np.isfinite(sums)
    for row in np.flatnonzero(~finite):  # finite numbers can have an infinite sum
        finite[row] = np.isfinite(rows[row]).all()
    return finite


def _read(looked: Iterable[tuple[str, Any]], count: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for name, flags in looked:
        here = flags.cpu().numpy() if is_tensor(flags) else flags
        if not here.all():
            rows = [i for i in range(count) if not here[i if len(here) == count else 0]]
            for row in rows:
                found.setdefault(row, f"NaN or infinity in output {name!r}")
    return found


def finish(
    model: Any,
    raw: Mapping[str, Any],
    geometries: Sequence[Geometry],
    paths: Sequence[str | None] | None,
    make: Make[R | Unusable],
) -> list[R]:
    """Makes results of outputs, one per picture, once it is known that those are numbers.

    Calls may be nested: the outermost looks.

    Args:
        model: Whose outputs they are.
        raw: Outputs by name: arrays, or tensors on a device.
        geometries: One per picture.
        paths: Where the pictures came from.
        make: Makes results of outputs, geometries and paths; an `Unusable` in the place of one is a fault.

    Raises:
        NotFiniteError: Outputs of a picture are not finite, or `make` had an `Unusable`; it has the others' results.
    """
    where: list[Any] = list(paths) if paths is not None else [None] * len(geometries)
    places = list(geometries)
    if isinstance(raw, _Checked):
        return list(make(raw, places, where))  # type: ignore[arg-type]  # whoever looked sees to those unusable
    count = len(places)
    fault = _Look(raw, count)
    faults = {} if fault.later else fault()
    made: Sequence[Any] = []
    if not faults:
        try:
            made = make(_Checked(raw), places, where)
        except Exception:
            faults = fault()
            if not faults:
                raise
        else:
            faults = fault() if fault.later else {}
    results: list[Any] = list(made)
    if faults:
        good = [i for i in range(count) if i not in faults]
        results = [None] * count
        if good:
            part = _Checked((name, value[good] if len(value) == count else value) for name, value in raw.items())
            for i, result in zip(good, make(part, [places[i] for i in good], [where[i] for i in good]), strict=True):
                results[i] = result
    for i, result in enumerate(results):
        if isinstance(result, Unusable):
            faults[i], results[i] = result.why, None
    if faults:
        raise not_finite(model, faults, results, dict(enumerate(where)))
    return results
