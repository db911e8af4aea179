"""Packed products are the plain ones, where they are used at all."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from lensmount_networks import torch_module  # noqa: E402  # needs torch
from lensmount_rfdetr.networks import products  # noqa: E402


def product(inputs, outputs, activation):
    random = torch.Generator().manual_seed(1)
    tensors = {"weight": torch.randn(outputs, inputs, generator=random), "bias": torch.randn(outputs, generator=random)}
    return torch_module(products.Product(inputs, outputs, activation), tensors)


@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
@pytest.mark.parametrize("shape", [(1, 1, 48), (3, 7, 48), (2, 700, 48), (5, 48)])
def test_equal_to_plain(activation, shape):
    torch.manual_seed(1)
    layer = product(48, 80, activation)
    x = torch.randn(shape)
    expected = products.plain(x.double(), layer.weight.double(), layer.bias.double(), activation)
    with torch.inference_mode():
        for _ in range(2):
            assert (layer(x).double() - expected).abs().max() < 2e-5
        strided = torch.randn(shape).transpose(0, -2).contiguous().transpose(0, -2)
        found = products.plain(strided, layer.weight, layer.bias, activation)
        assert torch.allclose(layer(strided), found, atol=2e-5)


def test_plain_where_packing_does_not_work(monkeypatch):
    layer = product(8, 8, "gelu")
    x = torch.randn(2, 8)
    with torch.inference_mode():
        packed = layer(x)
        monkeypatch.setattr(products, "_packs", lambda: False)
        assert torch.allclose(layer(x), packed, atol=1e-5)
        assert layer.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_wrong_products_are_noticed(monkeypatch):
    products._packs.cache_clear()
    try:
        monkeypatch.setattr(products, "_run", lambda x, packed, bias, name: torch.zeros(2, 40, 96))
        assert not products._packs()
        monkeypatch.setattr(products, "_pack", lambda weight: torch.ops.mkldnn.no_such_operator(weight))
        products._packs.cache_clear()
        assert not products._packs()
    finally:
        products._packs.cache_clear()
