"""A graph that runs on a server: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lensmount.contracts import TensorSpec, check_feeds
from lensmount_triton import errors
from lensmount_triton.config import DEVICE, TYPES

if TYPE_CHECKING:
    from lensmount_triton.server import Clients


class TritonSession:
    """A graph on a Triton server; satisfies `lensmount.contracts.Session`.

    Args:
        clients: Of the server.
        model: The model's name there.
        subject: The graph, in words.
        inputs: Inputs as the graph's file has them.
        outputs: Outputs as the graph's file has them.
        metadata: The file's metadata.
        precision: What the graph computes in.
        provider: What the server calls itself.
        max_batch: Largest batch of one request; larger ones are sent in parts. None where there is no limit.

    Attributes:
        backend: `triton`.
        device: `remote`.
    """

    def __init__(
        self,
        clients: Clients,
        model: str,
        subject: str,
        *,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        metadata: Mapping[str, str],
        precision: str,
        provider: str,
        max_batch: int | None,
    ) -> None:
        self._clients = clients
        self._model = model
        self._subject = subject
        self._max_batch = max_batch
        self.backend = "triton"
        self.device = DEVICE
        self.inputs = inputs
        self.outputs = outputs
        self.metadata = dict(metadata)
        self.precision = precision
        self.provider = provider

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs once; see `lensmount.contracts.Session.run`."""
        check_feeds(self.inputs, feeds, self._subject)
        most = self._max_batch
        count = next(iter(feeds.values())).shape[0] if most is not None else 0
        if most is None or count <= most:
            return self._request(feeds)
        parts = [
            self._request({name: array[at : at + most] for name, array in feeds.items()})
            for at in range(0, count, most)
        ]
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.outputs}

    def close(self) -> None:
        """Closes the connections; the server keeps the model. A second call does nothing."""
        self._clients.close()

    def _request(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        from tritonclient.http import InferInput, InferRequestedOutput

        inputs = []
        for spec in self.inputs:
            array = np.asarray(feeds[spec.name], order="C")
            wanted = InferInput(spec.name, list(array.shape), TYPES[spec.dtype])
            wanted.set_data_from_numpy(array, binary_data=True)
            inputs.append(wanted)
        outputs = [InferRequestedOutput(spec.name, binary_data=True) for spec in self.outputs]

        def infer(client: Any) -> dict[str, NDArray[Any]]:
            answer = client.infer(self._model, inputs, outputs=outputs)
            # copied: what the client gives may be a view of the response, and is read-only
            return {spec.name: np.array(answer.as_numpy(spec.name)) for spec in self.outputs}

        from lensmount.errors import LensmountError

        try:
            found: dict[str, NDArray[Any]] = self._clients.ask(infer)
        except LensmountError:
            raise
        except Exception as error:
            raise errors.running(error, self._subject, self._clients.server) from error
        return found
