"""The stages, one file each: a function reads inputs from disk, calls steps of ``p2o_core``, writes outputs to disk.

``prepare`` → ``init`` → [``rollout`` → ``verify`` → ``mine`` → ``evolve`` → ``distill`` → ``evaluate``] × iterations
→ ``summary``

``registry``    all stages by name               ``benchmarks``  a trained policy on benchmarks
``running/``    how a stage runs: checks, units, digests, the lock
``worlds``      the embedded worlds, for prepare
``parameters/`` params.yaml as one typed object  ``problems/``   data sets, answers, base policies
"""
