"""What goes over Triton's wire is named arrays: here are text and numbers as such. No I/O.

What is in which array is beside this file, one file per kind of request or answer; together they are docs/triton.md.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import OurError

Tensors = Mapping[str, NDArray[np.generic]]


def text(value: str) -> NDArray[np.object_]:
    """A BYTES tensor of one element."""
    return np.array([value.encode()], dtype=object)


def texts(values: Sequence[str | bytes]) -> NDArray[np.object_]:
    """A BYTES tensor."""
    tensor = np.empty(len(values), dtype=object)
    tensor[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return tensor


def text_in(tensors: Tensors, name: str) -> str:
    """The one string of a tensor.

    Raises:
        OurError: it is missing, or is something else.
    """
    tensor = tensor_in(tensors, name)
    if tensor.size != 1:
        raise OurError(f"{name} has {tensor.size} elements; one is wanted")
    found = tensor.reshape(-1)[0]
    try:
        return found.decode() if isinstance(found, bytes) else str(found)
    except UnicodeDecodeError as error:
        raise OurError(f"{name} is not UTF-8: {error}") from error


def integer_in(tensors: Tensors, name: str) -> int:
    """The one integer of a tensor.

    Raises:
        OurError: it is missing, or is something else.
    """
    tensor = tensor_in(tensors, name)
    if tensor.size != 1 or not np.issubdtype(tensor.dtype, np.integer):
        raise OurError(f"{name} is {tensor.dtype} of {tensor.size} elements; one integer is wanted")
    return int(tensor.reshape(-1)[0])


def tensor_in(tensors: Tensors, name: str) -> NDArray[np.generic]:
    """A tensor of this name.

    Raises:
        OurError: there is none.
    """
    tensor = tensors.get(name)
    if tensor is None:
        raise OurError(f"the request has no {name}")
    return tensor
