"""What a model promises, whatever its task; docs/conformance.md says why."""

from __future__ import annotations

from lensmount_testing.comparing import Tolerance
from lensmount_testing.model_inputs import ModelInputs
from lensmount_testing.model_results import ModelResults
from lensmount_testing.model_use import ModelUse

__all__ = ["ModelContract", "Tolerance"]


class ModelContract(ModelInputs, ModelResults, ModelUse):
    """Tests of one model. Subclass it as `Test…`, and name the model, or give a fixture `model_name` or `model`.

    What is tested follows from the task of the model's card. A fixture `picture` gives a picture in which the model
    finds something (uint8 `(H, W, 3)` BGR); without one it is that of the fixture `sample_image`.

    Attributes:
        model_id: Id or path of the model. Instead of it: a fixture `model_name`, where a file has to be made first; or
            a fixture `model` that gives the model itself, whereupon tests that load it themselves are skipped.
        backends: Backends that have to agree with one another. Where each has a file of its own, a fixture
            `model_names` gives names by backend.
        load_options: Options of every load.
        call_options: Options of every call, such as words to look for, points, or a confidence at which something is
            found. Where they depend on the picture, override `options`.
        nothing: Options under which a detector finds nothing.
        tolerance: How far results may be apart that should be the same.
        parity: The same between backends.
    """
