import json

import pytest
from cold_starts import cold_start

from fastbp.kernels.jit import JIT_DISABLED

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")


def test_processes_that_start_at_once_on_an_empty_cache_agree(tmp_path):
    cache = tmp_path / "cache"
    outputs, after = cold_start(4, "kernels", cache, timeout=300)
    answers = [json.loads(out)[0] for out in outputs]
    assert answers[0] == {f"kernels {T}": [0.5] * 5 for T in ("float32", "float64")}
    assert all(answer == answers[0] for answer in answers)
    answer, misses, folder = json.loads(after)
    assert (answer, misses) == (answers[0], 0)
    (found,) = cache.iterdir()
    assert str(found) == folder
    assert {path.suffix for path in found.iterdir()} == {".nbc"}
    assert len(list(found.iterdir())) == 4
