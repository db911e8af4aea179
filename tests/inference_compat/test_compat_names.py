"""The import path: every name of the table is there, others fail and say so, and never beside the real one."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from lensmount_inference_compat.finder import ROOT
from lensmount_inference_compat.table import MODULES


@pytest.mark.parametrize("module", MODULES)
def test_every_name_of_the_table_is_there(module):
    loaded = importlib.import_module(f"{ROOT}.{module}" if module else ROOT)
    for name in MODULES[module]:
        assert getattr(loaded, name) is not None, name
        assert name in dir(loaded)
    assert set(loaded.__all__) == {name for name in MODULES[module] if not name.startswith("_")}


def test_modules_below_one_another_are_attributes():
    import inference_models.models.sam2.cache as cache

    import inference_models

    assert inference_models.models.sam2.cache is cache
    assert cache.Sam2ImageEmbeddingsInMemoryCache.init(2).get("a") is None


@pytest.mark.parametrize(
    "line",
    [
        "from inference_models import AutoModelPipeline",
        "import inference_models.models.florence2.florence2_hf",
        "from inference_models.models.sam2.cache import Sam2ImageEmbeddingsCache",
        "from inference_models.developer_tools import get_model_package_contents",
    ],
)
def test_what_lensmount_has_nothing_for_fails_at_import_and_says_so(line):
    with pytest.raises(ImportError, match="lensmount has nothing for"):
        exec(line, {})


def test_importing_it_costs_nothing():
    code = (
        "import sys, inference_models, inference_models.models.sam2.cache\n"
        "heavy = {'numpy', 'torch', 'cv2', 'onnxruntime', 'supervision'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_never_runs_beside_the_real_one(tmp_path):
    info = tmp_path / "inference_models-0.39.6.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: inference-models\nVersion: 0.39.6\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    import inference_models\n"
        "except ImportError as error:\n    assert 'pip uninstall inference-models' in str(error), error\n"
        "else:\n    raise SystemExit('it did not fail')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
