"""The console ``p2o``: thin commands over flows and tasks. They import inside: Prefect takes seconds.

``training``  run, stage, resolve, compare, arm    ``results``   evaluate, promote, table, report, track, gc
``planning``  doctor, plan, params                 ``services``  up, down, status, serve
``options``   options that several commands take
"""
