"""The Prefect flows and the console: order, skipping, versions, progress. The work is in ``tasks``."""
