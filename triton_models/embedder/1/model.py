"""Triton's side of `embedder`: tensors in, tensors out. What they mean is `dragon_runtime.hosting.embedder`'s."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from dragon_core.errors import DragonError
from dragon_runtime.engines.triton.tensors import Tensors
from dragon_runtime.hosting.embedder import EmbedderService
from dragon_runtime.hosting.runner import EmbedderParameters, parameters_of


class TritonPythonModel:
    """What Triton loads."""

    def initialize(self, args: dict[str, str]) -> None:
        try:
            self._service = EmbedderService(parameters_of(args["model_config"], EmbedderParameters).uri)
        except DragonError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """All at once; when that fails one by one, so that a bad text harms no other request."""
        texts = [_texts(request) for request in requests]
        wanted = [sorted(request.requested_output_names()) for request in requests]
        if len(requests) > 1 and all(names == wanted[0] for names in wanted):
            try:
                found = self._service.serve([text for each in texts for text in each], wanted[0])
            except DragonError:
                pass
            else:
                ends = np.cumsum([len(each) for each in texts])[:-1]
                rows = {name: np.split(array, ends) for name, array in found.items()}
                return [_response({name: parts[at] for name, parts in rows.items()}) for at in range(len(requests))]
        return [self._serve(each, names) for each, names in zip(texts, wanted, strict=True)]

    def _serve(self, texts: list[str], outputs: list[str]) -> Any:
        try:
            return _response(self._service.serve(texts, outputs))
        except DragonError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def finalize(self) -> None:
        self._service.close()


def _texts(request: Any) -> list[str]:
    rows = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1)
    return [row.decode("utf-8", "replace") for row in rows]


def _response(tensors: Tensors) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])
