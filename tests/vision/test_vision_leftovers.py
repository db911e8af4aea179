"""The one check of tensors that nothing asked for."""

from __future__ import annotations

import pytest

from lensmount.errors import UnsupportedModelError
from lensmount_vision.models.leftovers import Taken, require_all_used


@pytest.mark.parametrize(
    "ask", [lambda t: t["a.b"], lambda t: t.get("a.b"), lambda t: t.pop("a.b"), lambda t: t.under("a.")]
)
def test_what_is_asked_for_by_name_is_used(ask) -> None:
    tensors = Taken({"a.b": 1})
    ask(tensors)
    tensors.require_all("file")


def test_going_through_them_is_no_asking() -> None:
    tensors = Taken({"a.b": 1})
    assert list(tensors.items()) == [("a.b", 1)] and tensors.get("c") is None
    with pytest.raises(UnsupportedModelError, match=r"file has tensors that have no place"):
        tensors.require_all("file")


@pytest.mark.parametrize(
    "name",
    ["optimizer.state.0.exp_avg", "ema_model.a", "lr_schedulers.0.x", "bn.num_batches_tracked", "x.position_ids"],
)
def test_training_and_constants_are_harmless(name) -> None:
    require_all_used([name], (), "file")


@pytest.mark.parametrize(
    "name", ["a.lora_A.weight", "adapter.x", "text_projection.bias", "optimizers_net.weight", "stem"]
)
def test_all_else_is_refused_by_name(name) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        require_all_used(["known", name], ["known"], "file")
    assert name in str(caught.value)
    require_all_used(["known", name], ["known"], "file", harmless=[name])
