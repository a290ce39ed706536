"""The layers of the book's chapter 5, with compiled kernels.

Each layer checks its input, allocates the output, calls its kernel, and keeps what ``backward``
needs.  No layer writes to an array it was given (the book's ``Relu.backward`` does).  The floating
point type is kept: float64 in, float64 out, and float32 likewise; integers count as float64.
An array that is not C-contiguous, aligned, writable and of native byte order costs one copy.

``backward`` belongs to the last ``forward``; before any it raises RuntimeError.  What forward keeps
are references: an input changed in place between forward and backward changes the gradient.
"""

from .affine import Affine
from .arithmetic import AddLayer, MulLayer
from .relu import Relu
from .sigmoid import Sigmoid
from .softmax_with_loss import SoftmaxWithLoss

__all__ = ["AddLayer", "Affine", "MulLayer", "Relu", "Sigmoid", "SoftmaxWithLoss"]
