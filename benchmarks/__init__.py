"""The benchmarks over the package's table of cases: asv's series, and commands of the repository.

asv runs the files of this folder, as they are now, with the fastbp of many commits.  The table of
cases must be today's then too, or a name would mean one thing before and another after: so here
``fastbp.bench`` is that of this checkout, whichever fastbp is installed.
"""

import sys

if "asv_runner" in sys.modules:
    import importlib.util
    from pathlib import Path

    import fastbp

    _folder = Path(__file__).resolve().parent.parent / "fastbp" / "bench"
    _spec = importlib.util.spec_from_file_location(
        "fastbp.bench", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    fastbp.bench = sys.modules["fastbp.bench"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(fastbp.bench)
