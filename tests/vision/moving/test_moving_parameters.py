"""`AutoModel.from_pretrained`: every parameter of inference-models 0.39.6 is translated, noticed or refused by name."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

from lensmount import AutoModel, registry
from lensmount.errors import InputError, LensmountError, NoPackageError, OptionError, UnknownOptionError
from lensmount_vision.moving import (
    CALLS,
    FAMILIES,
    PARAMETERS,
    BackendType,
    InMemoryCache,
    ParameterNotice,
    Quantization,
)
from lensmount_vision.moving.parameters import call_options, translate

#: The published signature of version 0.39.6.
POSITIONAL = [
    "model_id_or_path", "weights_provider", "api_key", "model_package_id", "backend", "batch_size", "quantization",
    "onnx_execution_providers", "device", "default_onnx_trt_options", "max_package_loading_attempts", "verbose",
    "model_download_file_lock_acquire_timeout", "allow_untrusted_packages", "trt_engine_host_code_allowed",
    "allow_local_code_packages", "verify_hash_while_download", "download_files_without_hash",
    "use_auto_resolution_cache", "auto_resolution_cache", "allow_direct_local_storage_loading",
    "model_access_manager", "nms_fusion_preferences", "model_type", "task_type", "allow_loading_dependency_models",
    "dependency_models_params", "point_model_directory", "forwarded_kwargs", "weights_provider_extra_query_params",
    "weights_provider_extra_headers", "content_addressed_artifact_cache", "required_capabilities",
]  # fmt: skip
KEYWORDS = ["preloaded_model_dependencies", "disabled_backends", "allow_vllm_proxy"]


def test_the_signature_is_the_published_one():
    parameters = inspect.signature(AutoModel.from_pretrained).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == POSITIONAL
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == KEYWORDS
    assert [row.name for row in PARAMETERS] == POSITIONAL + KEYWORDS
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert {row.name: row.default for row in PARAMETERS if row.name in defaults} == defaults


def test_no_name_stands_twice():
    for rows in ((*PARAMETERS, *FAMILIES), CALLS):
        names = [row.name for row in rows]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("row", [*PARAMETERS, *FAMILIES], ids=lambda row: row.name)
def test_each_parameter_does_what_the_table_says(row):
    """One that is not the default is seen: nothing is swallowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        translate({row.name: row.default})
    other = not row.default if isinstance(row.default, bool) else 7
    if row.does == "refused":
        with pytest.raises(OptionError, match=row.name) as caught:
            translate({row.name: other})
        assert row.says in str(caught.value)
    elif row.does == "notice":
        with pytest.warns(ParameterNotice, match=row.name):
            translate({row.name: other})


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row.name)
def test_each_option_of_a_call_does_what_the_table_says(row):
    assert call_options({row.name: row.default}) == {}
    other = not row.default if isinstance(row.default, bool) else 7
    if row.does == "refused":
        from lensmount_vision.moving import PreProcessingOverrides

        value = PreProcessingOverrides(disable_grayscale=True) if row.name == "pre_processing_overrides" else other
        with pytest.raises(OptionError, match=row.name):
            call_options({row.name: value})
    elif row.does == "notice":
        with pytest.warns(ParameterNotice, match=row.name):
            call_options({row.name: other})
    else:
        assert list(call_options({row.name: other}).values()) == [other]


class Device:
    """As `torch.device` prints."""

    def __str__(self):
        return "cuda:1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"device": "cpu"}, {"device": "cpu"}),
        ({"device": 0}, {"device": "cuda:0"}),
        ({"device": Device()}, {"device": "cuda:1"}),
        ({"quantization": "fp16"}, {"precision": "fp16"}),
        ({"quantization": [Quantization.FP16, "fp32"]}, {"precision": "fp16,fp32"}),
        ({"model_type": "rfdetr-base"}, {"architecture": "rfdetr"}),
        ({"model_type": "yolov8"}, {"architecture": "yolo"}),
        ({"task_type": "interactive-instance-segmentation"}, {"task": "interactive-segmentation"}),
        ({"task_type": "object-detection"}, {"task": "object-detection"}),
        ({"labels": ["a", "b"]}, {"classes": ["a", "b"]}),
        ({"resolution": 560}, {"input_size": 560}),
        ({"weights_provider": "hf"}, {"source": "hf"}),
        ({"api_key": "k"}, {"api_key": "k"}),
        ({"engine_host_code_allowed": True}, {"allow_host_code": True}),
        ({"owlv2_enforce_model_compilation": True}, {"compile": True}),
        ({"trt_engine_host_code_allowed": False, "allow_local_code_packages": False}, {}),
        ({"precision": "fp16", "offline": True}, {"precision": "fp16", "offline": True}),
    ],
)
def test_values_are_translated(given, expected):
    assert translate({"model_id_or_path": "x", **given}).options == expected


def test_backends_are_translated():
    assert translate({"backend": "trt"}).backends == ("tensorrt",)
    assert translate({"backend": [BackendType.HF, "torch-script", "onnx"]}).backends == ("torch", "onnx")
    loads = translate({"onnx_execution_providers": ["CUDAExecutionProvider", ("CPUExecutionProvider", {})]})
    assert loads.backends == ("onnx",)
    assert loads.options == {"providers": ("CUDAExecutionProvider", "CPUExecutionProvider")}
    with pytest.raises(OptionError, match="with settings"):
        translate({"onnx_execution_providers": [("TensorrtExecutionProvider", {"trt_fp16_enable": True})]})
    assert translate({"disabled_backends": ["trt"]}).disabled == {"tensorrt"}


def test_caches_become_ours():
    cache = InMemoryCache.init(size_limit=3)
    loads = translate({"sam2_image_embeddings_cache": cache, "sam2_low_resolution_masks_cache": cache})
    assert loads.options == {"caches": {"embeddings": cache, "masks": cache}}
    with pytest.raises(OptionError, match="not one of ours"):
        translate({"owlv2_class_embeddings_cache": object()})


def test_entries_of_their_caches_lie_in_host_memory():
    torch = pytest.importorskip("torch")
    for send, where in ((None, "cpu"), (False, "meta")):
        cache = InMemoryCache.init(2) if send is None else InMemoryCache.init(2, send_to_cpu=send)
        assert cache._send_to_cpu is (where == "cpu")
    cache.put("a", torch.zeros(2))
    assert cache.get("a").shape == (2,)


# --- loading ----------------------------------------------------------------------------------------------------------


def test_the_first_backend_that_runs_is_taken():
    with AutoModel.from_pretrained("shapes-nano", backend=["trt", "onnx", "torch"], device="cpu") as model:
        assert model.backend == "onnx"
    with pytest.raises(NoPackageError, match="none of the backends") as caught:
        AutoModel.from_pretrained("shapes-nano", backend=["trt", "coreml"])
    assert "tensorrt" in str(caught.value) and "coreml" in str(caught.value)


def test_disabled_backends_are_not_chosen():
    with AutoModel.from_pretrained("shapes-nano", disabled_backends=["onnx", "openvino"], device="cpu") as model:
        assert model.backend == "torch"
    with pytest.raises(NoPackageError, match="no other backend"):
        AutoModel.from_pretrained("shapes-nano", disabled_backends=["onnx", "openvino", "torch"], device="cpu")


def test_a_notice_points_at_the_line_that_called():
    with pytest.warns(ParameterNotice) as caught:
        AutoModel.from_pretrained("shapes-nano", "roboflow", "a-key", batch_size=4, device="cpu").close()
    assert {warning.filename for warning in caught} == {__file__}
    assert {str(warning.message).split(":")[1].split()[0].split("=")[0] for warning in caught} == {
        "batch_size",
        "api_key",
    }


def test_verbose_prints_the_plan(capsys):
    AutoModel.from_pretrained("shapes-nano", backend="onnx", device="cpu", verbose=True).close()
    assert "shapes-nano (yolo" in capsys.readouterr().out


def test_packages_are_known_by_our_name(tmp_path):
    (package,) = (one.name for one in registry.describe("shapes-nano").packages if one.format == "onnx")
    with AutoModel.from_pretrained("shapes-nano", model_package_id=package, backend="onnx", device="cpu") as model:
        assert model.package.name == package
    with pytest.raises(NoPackageError, match="no package 'other'"):
        AutoModel.from_pretrained("shapes-nano", model_package_id="other")


def test_paths_can_be_asked_for_and_refused(tmp_path):
    file = tmp_path / "a.onnx"
    file.write_bytes(b"no graph")
    with pytest.raises(InputError, match="needs a path"):
        AutoModel.from_pretrained("shapes-nano", weights_provider="local")
    with pytest.raises(InputError, match="refuses paths"):
        AutoModel.from_pretrained(file, allow_direct_local_storage_loading=False)
    with pytest.raises(LensmountError):
        AutoModel.from_pretrained(str(file), weights_provider="local")


def test_a_misspelt_parameter_is_refused():
    with pytest.raises(UnknownOptionError, match="bakend"):
        AutoModel.from_pretrained("shapes-nano", bakend="onnx")
    with AutoModel.from_pretrained("shapes-nano", backend="onnx", device="cpu") as model, pytest.raises(TypeError):
        model(np.zeros((8, 8, 3), np.uint8), confidense=0.5)


def test_describing_prints(capsys):
    AutoModel.describe_model("shapes-nano")
    AutoModel.describe_compute_environment()
    (package,) = (one.name for one in registry.describe("shapes-nano").packages if one.format == "onnx")
    AutoModel.describe_model_package("shapes-nano", package)
    printed = capsys.readouterr().out
    assert "shapes-nano (yolo" in printed and "onnx:" in printed and ".onnx" in printed
    with pytest.raises(TypeError, match="not instantiated"):
        AutoModel()
