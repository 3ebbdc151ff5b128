"""The stages: one file each, a function from inputs on disk to outputs on disk around steps of ``p2o_core``.

prepare → init → [rollout → verify → mine → evolve → distill → evaluate] × iterations → report

``registry``    all stages by name               ``benchmarks``  a trained policy on benchmarks
``running/``    how a stage runs: checks, units, digests, the lock
``parameters/`` params.yaml as one typed object  ``problems/``   data sets, answers, base policies
"""
