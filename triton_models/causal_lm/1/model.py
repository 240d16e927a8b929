"""Triton's side of `causal_lm`: tensors in, tensors out. What they mean is `dragon_runtime.hosting.service`'s."""

from typing import Any

import triton_python_backend_utils as pb_utils

from dragon_core.errors import DragonError
from dragon_runtime.engines.triton.tensors import Tensors
from dragon_runtime.hosting.metrics import CausalLmMetrics
from dragon_runtime.hosting.runner import CausalLmParameters, CausalLmRunner, parameters_of


class Reply:
    """Answers one request; see `dragon_runtime.hosting.replies.Reply`."""

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()

    def send(self, tensors: Tensors, *, is_final: bool = False) -> None:
        response = pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_final else 0)

    def finish(self) -> None:
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def fail(self, message: str) -> None:
        response = pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    @property
    def is_cancelled(self) -> bool:
        return bool(self._sender.is_cancelled())


class TritonPythonModel:
    """What Triton loads."""

    def initialize(self, args: dict[str, str]) -> None:
        try:
            parameters = parameters_of(args["model_config"], CausalLmParameters)
            self._metrics = CausalLmMetrics(pb_utils)
            self._runner = CausalLmRunner(parameters, self._metrics)
        except DragonError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            self._runner.handle(tensors, Reply(request))

    def finalize(self) -> None:
        self._runner.close()
        self._metrics.close()
