"""The console ``p2o``: thin commands over the flows and tasks. Imports happen inside them: Prefect takes seconds."""
