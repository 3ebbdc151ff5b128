"""Measurements that are no part of a run, a module each: ``python -m benchmarks.<name> --help``."""
