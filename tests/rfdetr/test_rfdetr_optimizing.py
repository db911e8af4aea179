"""`optimize_for_inference` on RF-DETR, as inference-models has it."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount import AutoModel
from lensmount.errors import OptionError


def test_an_exported_rf_detr_is_kept_where_it_gives_the_same(checkpoint, picture, capsys):
    pytest.importorskip("onnx")
    with AutoModel.from_pretrained(checkpoint, backend="torch", device="cpu", model_type="rfdetr-base") as model:
        before = np.asarray(model(picture, confidence=0.1)[0].xyxy)
        made = model.optimize_for_inference(compile=False, pictures=[picture], runs=2, pixels=0.5, scores=1e-3)
        assert made.kept and made.objects > 0 and made.pixels < 0.5 and model.backend == "onnx"
        assert np.allclose(np.asarray(model(picture, confidence=0.1)[0].xyxy), before, atol=0.5)
        assert "kept" in capsys.readouterr().out
        model.remove_optimized_model()
        assert model.backend == "torch"
        assert np.array_equal(np.asarray(model(picture, confidence=0.1)[0].xyxy), before)


def test_options_there_are_options_here(checkpoint, picture):
    """`labels` and `resolution` are `classes` and `input_size`; the suppression that it does not have is refused."""
    with AutoModel.from_pretrained(checkpoint, backend="torch", labels=["a", "b", "c"], resolution=128) as model:
        assert model.class_names[:3] == ["a", "b", "c"] and model.pre_process(picture)[0].shape[2:] == (128, 128)
        assert len(model(picture, confidence=0.0)[0]) == 10
        with pytest.raises(TypeError, match="iou_threshold"):
            model(picture, iou_threshold=0.3)
    AutoModel.from_pretrained(checkpoint, backend="onnx", device="cpu").close()
    with pytest.raises(OptionError, match="execution_plan"):
        AutoModel.from_pretrained(checkpoint, execution_plan={})
