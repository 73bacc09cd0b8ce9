"""Benchmarks: each compares ours with the plain way of doing the same, in one run, and reports the ratio."""
