"""The benchmarks: one table of cases, read by the comparison, by asv and by a test."""
