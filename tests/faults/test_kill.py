import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("safetensors", reason="needs the extra train")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_thirty_kills_lose_nothing():
    # In a process of its own: this one has threads, which a fork does not survive.
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kill", "--kills", "30", "--jobs", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    inside = re.search(r"^30 kills, (\d+) inside a save, 0 lost", done.stdout, re.MULTILINE)
    assert int(inside[1]) >= 6
