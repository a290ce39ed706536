"""Arrays that begin on cache lines."""

import numpy as np
import pytest

from fastbp._memory import CACHE_LINE, HUGE_PAGE, aligned_zeros, round_up


@pytest.mark.parametrize("elements", [0, 1, 7, 1000, 65536, HUGE_PAGE // 4, HUGE_PAGE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_memory_begins_on_a_cache_line_and_is_zero(dtype, elements):
    array = aligned_zeros(elements, np.dtype(dtype))
    assert (array.size, array.dtype) == (elements, dtype)
    assert array.ctypes.data % CACHE_LINE == 0 or not elements
    assert not array.any()
    assert array.flags.carray
    array[...] = 1
    assert array.sum() == elements


def test_rounding_up_gives_the_next_multiple():
    assert [round_up(n, 4) for n in (0, 1, 4, 5)] == [0, 4, 4, 8]
