"""Generated calls of the public API, and generated files for the readers.

``python -m tests.fuzz.api`` and ``python -m tests.fuzz.readers``; docs/fuzzing.md tells the rest.
"""

import sys
from pathlib import Path

# What all tests share is found by its bare name, under pytest and as a command.
if (tests := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.insert(0, tests)
