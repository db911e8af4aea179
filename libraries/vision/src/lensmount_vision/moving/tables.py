"""What becomes of each parameter of inference-models: translated, accepted with a notice, or refused by name.

The documentation prints these tables, and `parameters` obeys them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Does = Literal["translated", "notice", "refused"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes:
        name: Its name.
        default: What stands for "not given".
        does: What becomes of any other value.
        says: What it becomes, or why it is not needed, or what to write instead.
    """

    name: str
    default: Any
    does: Does
    says: str


def _p(name: str, default: Any, does: Does, says: str) -> Parameter:
    return Parameter(name, default, does, says)


#: Parameters of `AutoModel.from_pretrained` itself, in its order (version 0.39.6).
PARAMETERS = (
    _p("model_id_or_path", None, "translated", "the id, alias, path or address of `registry.load`"),
    _p(
        "weights_provider",
        "roboflow",
        "translated",
        '`"roboflow"`: what is installed first, then `source="roboflow"`; `"local"`: a path; others: `source`',
    ),
    _p("api_key", None, "translated", "`api_key` of that source"),
    _p("model_package_id", None, "translated", "`package`, by our name or by the provider's id"),
    _p(
        "backend",
        None,
        "translated",
        "`backend`: `trt` is `tensorrt`, `hugging-face` and `torch-script` are `torch`; of a list the first that runs",
    ),
    _p("batch_size", None, "notice", "any number of pictures is taken, and run in the batches that the package allows"),
    _p("quantization", None, "translated", "`precision`; of a list any will do"),
    _p("onnx_execution_providers", None, "translated", '`providers`, with `backend="onnx"` where none was named'),
    _p("device", None, "translated", "`device`, from text, number or `torch.device`"),
    _p(
        "default_onnx_trt_options",
        True,
        "notice",
        "onnxruntime's TensorRT provider is used only where `onnx_execution_providers` names it",
    ),
    _p(
        "max_package_loading_attempts",
        None,
        "notice",
        "one package is chosen before anything is opened, and a failure is not hidden by another: `registry.explain`",
    ),
    _p("verbose", False, "translated", "the plan of the load is printed, as `registry.explain` gives it"),
    _p(
        "model_download_file_lock_acquire_timeout",
        20,
        "notice",
        "a download that another process is at is waited for, and its lock ends with that process",
    ),
    _p("allow_untrusted_packages", False, "notice", "no package's code is run, whoever made it"),
    _p(
        "trt_engine_host_code_allowed",
        True,
        "translated",
        "`False` is what `registry.load` does; code needs `allow_host_code=True`",
    ),
    _p(
        "allow_local_code_packages",
        True,
        "translated",
        "`False` is what `registry.load` does: code in folders is refused",
    ),
    _p("verify_hash_while_download", True, "notice", "hashes are always verified"),
    _p(
        "download_files_without_hash",
        False,
        "notice",
        "such files of the provider are taken, and their sha256 recorded",
    ),
    _p("use_auto_resolution_cache", True, "notice", "there is no such cache: packages are ranked anew at each load"),
    _p("auto_resolution_cache", None, "refused", "there is no such cache: packages are ranked anew at each load"),
    _p("allow_direct_local_storage_loading", True, "translated", "`False` refuses paths"),
    _p("model_access_manager", None, "refused", "check access before the call, or write a source as a plugin"),
    _p(
        "nms_fusion_preferences",
        None,
        "notice",
        "graphs with and without suppression in them give the same boxes; `model_package_id` names one",
    ),
    _p("model_type", None, "translated", "`architecture`; the size is read from the weights"),
    _p("task_type", None, "translated", "`task`"),
    _p("allow_loading_dependency_models", True, "notice", "no model loads another one"),
    _p("dependency_models_params", None, "refused", "no model loads another one: load each by itself"),
    _p("point_model_directory", None, "refused", "`registry.pull(id, to=folder)` writes the files and says where"),
    _p("forwarded_kwargs", None, "refused", "no model loads another one: load each by itself"),
    _p("weights_provider_extra_query_params", None, "refused", "write a source as a plugin"),
    _p("weights_provider_extra_headers", None, "refused", "write a source as a plugin"),
    _p(
        "content_addressed_artifact_cache",
        None,
        "refused",
        "the store is one already: LENSMOUNT_HOME says where it lies",
    ),
    _p("required_capabilities", None, "refused", "name the package: `model_package_id`"),
    _p("preloaded_model_dependencies", None, "refused", "no model loads another one: load each by itself"),
    _p("disabled_backends", None, "translated", "the best package on another backend"),
    _p("allow_vllm_proxy", False, "refused", "no language model is served here"),
)

#: What single families add, as further keywords.
FAMILIES = (
    _p("sam2_image_embeddings_cache", None, "translated", '`caches={"embeddings": …}`'),
    _p("sam2_low_resolution_masks_cache", None, "translated", '`caches={"masks": …}`'),
    _p("sam_image_embeddings_cache", None, "refused", "SAM of the first generation is not run here: take a SAM 2"),
    _p("sam_low_resolution_masks_cache", None, "refused", "SAM of the first generation is not run here: take a SAM 2"),
    _p("sam3_image_embeddings_cache", None, "refused", "SAM 3 is not run here: take a SAM 2"),
    _p("sam3_low_resolution_masks_cache", None, "refused", "SAM 3 is not run here: take a SAM 2"),
    _p("owlv2_class_embeddings_cache", None, "translated", '`caches={"classes": …}`'),
    _p("owlv2_images_embeddings_cache", None, "translated", '`caches={"embeddings": …}`'),
    _p("owlv2_enforce_model_compilation", False, "translated", "`compile=True`"),
    _p(
        "sam2_allow_client_generated_hash_ids",
        False,
        "refused",
        "keys are made of the picture's content, never by callers",
    ),
    _p("disable_sam2_torch_jit_transforms", True, "notice", "pictures are prepared without TorchScript"),
    _p("max_batch_size", None, "notice", "batches are as large as the package and the machine allow"),
    _p("labels", None, "translated", "`classes`"),
    _p("resolution", None, "translated", "`input_size`"),
    _p("rf_detr_max_input_resolution", None, "notice", "the input has the size of the package, or `resolution`"),
    _p("recommended_parameters", None, "refused", "write them into the package, or pass `confidence` to the call"),
    _p("execution_plan", None, "refused", "use `compile`, `cuda_graphs` or `device_path`"),
    _p(
        "local_files_only",
        True,
        "notice",
        "files of the store are used without asking the network; `offline=True` forbids it",
    ),
    _p("engine_host_code_allowed", False, "translated", "`allow_host_code`"),
    _p("trt_cuda_graph_cache", None, "notice", "`cuda_graphs` of `registry.load` says how many graphs are kept"),
    _p(
        "default_trt_cuda_graph_cache_size",
        None,
        "notice",
        "`cuda_graphs` of `registry.load` says how many graphs are kept",
    ),
    _p("torchscript_state_global_lock", None, "notice", "models are safe to call from several threads"),
    _p("allow_url_input", True, "refused", "pass pictures that are loaded already"),
    _p("allow_non_https_url", False, "refused", "use https"),
    _p("allow_url_without_fqdn", False, "refused", "pass pictures that are loaded already"),
    _p("whitelisted_domains", None, "refused", "check addresses before the call"),
    _p("blacklisted_domains", None, "refused", "check addresses before the call"),
    _p("allow_local_storage_access_for_reference_images", True, "refused", "pass pictures that are loaded already"),
    _p("output_type", "feature_vector", "refused", "towers give embeddings; other heads are not run"),
    _p("quantization_config", None, "refused", "language models are not run here"),
    _p("disable_quantization", False, "refused", "language models are not run here"),
    _p("trust_remote_code", False, "refused", "code from repositories is never run"),
)

#: Options of calls.
CALLS = (
    _p("input_color_format", None, "translated", "`color`"),
    _p(
        "confidence",
        None,
        "translated",
        '`confidence`; `"default"` and `"best"`: what the package recommends, else 0.4',
    ),
    _p("iou_threshold", None, "translated", "`iou_threshold`, 0.3 where it is not given"),
    _p(
        "max_detections",
        None,
        "translated",
        "`max_detections`, 300 where it is not given (RF-DETR: as many as it has queries)",
    ),
    _p("class_agnostic_nms", False, "translated", "`class_agnostic`"),
    _p("mask_format", "dense", "translated", '`.mask` dense, made when it is asked for, or `"rle"`'),
    _p("masks_resolution_factor", 1.0, "refused", "masks are compact crops of the picture"),
    _p("masks_smoothing_enabled", True, "refused", "masks are sampled bilinearly at the picture's pixels"),
    _p("masks_binarization_threshold", 0.5, "refused", "a pixel is mask above the probability 0.5"),
    _p("key_points_threshold", None, "refused", "choose points by `prediction.confidence`"),
    _p("image_size", None, "refused", "the input's size is chosen at load: `resolution`, `input_size`"),
    _p("pre_processing_overrides", None, "refused", "preparation is the package's; edit its inference_config.json"),
    _p("independent_stage_execution", True, "notice", "stages never share buffers with the caller"),
    _p("disable_cuda_graphs", False, "notice", "`cuda_graphs` of `registry.load` decides"),
)
