"""How the tests compare numbers: with a float64 oracle, and with central differences."""

import numpy as np


def assert_close(actual, expected):
    """Compare with a float64 oracle, relative to its largest element; NaN and infinity must agree.

    1e-12 for float64; float32 carries the rounding of a sum over a few hundred elements.
    """
    relative = 1e-12 if np.result_type(actual) == np.float64 else 5e-6
    scale = np.abs(expected).max(initial=0)
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=relative, atol=relative * scale)


def central_differences(f, x):
    """Return df/dx of a number f() that looks at the array x."""
    grad, h = np.empty_like(x), 1e-5
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + h
        above = f()
        x[index] = value - h
        grad[index] = (above - f()) / (2 * h)
        x[index] = value
    return grad


def agree(gradient, differences):
    """Tell whether they agree to 1e-7 of the largest element."""
    return np.abs(gradient - differences).max() <= 1e-7 * np.abs(differences).max()
