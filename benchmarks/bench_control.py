"""NumPy alone, nothing of fastbp: a step in these curves is the machine's."""

from __future__ import annotations

import numpy as np


class NumPy:
    """Seconds of an element-wise function and of a matrix product."""

    version = "1"

    def setup(self) -> None:
        """Make the arrays, and each call once."""
        rng = np.random.default_rng(1)
        self.x = rng.standard_normal((1000, 784)).astype(np.float32)
        self.W = rng.standard_normal((784, 50)).astype(np.float32)
        self.a = rng.standard_normal((1000, 50)).astype(np.float32)
        self.time_exp()
        self.time_product()

    def time_exp(self) -> None:
        """The exponential of 1000 x 50 numbers."""
        np.exp(self.a)

    def time_product(self) -> None:
        """1000 x 784 by 784 x 50."""
        np.dot(self.x, self.W)
