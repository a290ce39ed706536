"""What a user waits for before anything happens, and how much memory it takes.

Each measurement is a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import numpy as np

import fastbp

# A network's first training, of one step.
FIRST_CALL = """
    import fastbp
    network = fastbp.TwoLayerNet(784, 50, 10)
    fastbp.fit(network, x, t, iterations=1, progress=False)
"""
DATA = """
    import numpy as np
    rng = np.random.default_rng(1)
    x, t = rng.random((100, 784)), rng.integers(0, 10, 100)
"""
NO_CACHE = """
    import atexit, os, shutil, tempfile
    os.environ["FASTBP_CACHE_DIR"] = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, os.environ["FASTBP_CACHE_DIR"])
"""


class Import:
    """Seconds of an import; NumPy's alone is the control."""

    version = "1"

    def timeraw_fastbp(self) -> tuple[str, str]:
        """``import fastbp``, with NumPy there already: nothing of it is loaded yet."""
        return "import fastbp", "import numpy"

    def timeraw_fit(self) -> tuple[str, str]:
        """What a training loads, Numba among it."""
        return "from fastbp import TwoLayerNet, fit", "import numpy"

    def timeraw_numpy(self) -> str:
        """``import numpy``."""
        return "import numpy"


class FirstCall:
    """Seconds from the import to the end of the first step through ``fit``."""

    version = "1"

    def setup_cache(self) -> None:
        """Leave compiled code in the cache for the warm series."""
        subprocess.run([sys.executable, "-c", dedent(DATA) + dedent(FIRST_CALL)], check=True)

    def timeraw_warm(self) -> tuple[str, str]:
        """With compiled code in the cache."""
        return FIRST_CALL, DATA

    def timeraw_cold(self) -> tuple[str, str]:
        """With nothing compiled yet."""
        return FIRST_CALL, NO_CACHE + DATA

    timeraw_cold.number = timeraw_cold.repeat = 1  # type: ignore[attr-defined]


class Memory:
    """The most memory of a process; the control has 60,000 images and the network too."""

    version = "1"

    def setup(self) -> None:
        """Make images and network, and no arrays besides: what a copy needs has to show."""
        rng = np.random.default_rng(1)
        self.x = np.empty((60_000, 784), np.float32)
        rng.random(out=self.x, dtype=np.float32)
        self.t = rng.integers(0, 10, len(self.x))
        self.network = fastbp.TwoLayerNet(784, 50, 10, dtype="float32")

    def peakmem_nothing(self) -> None:
        """Nothing: the control."""

    def peakmem_fit(self) -> None:
        """An epoch through ``fit``."""
        fastbp.fit(self.network, self.x, self.t, epochs=1, progress=False)

    def peakmem_predict(self) -> None:
        """The outputs of all images."""
        self.network.predict(self.x)
