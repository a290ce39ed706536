"""What is timed, how, and against whom: the benchmarks that ``fastbp bench`` runs.

:mod:`fastbp.bench.cases` is the one table of cases.  The command line, asv, pytest-benchmark and
the tests all read it: nothing is timed whose result is not also compared.
"""
