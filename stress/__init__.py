"""Trials that are no part of a run, a module each: ``python -m stress.<name> --help``."""
