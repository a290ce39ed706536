"""What the tests of all kernels need."""

import contextlib

import numpy as np
import pytest

from fastbp.kernels.jit import JIT_DISABLED


@pytest.fixture(autouse=True)
def silent_numbers():
    """Let kernels that run as plain Python compute inf - inf: NumPy's numbers would warn."""
    with np.errstate(all="ignore") if JIT_DISABLED else contextlib.nullcontext():
        yield
