"""The stages: one file each, a function from inputs on disk to outputs on disk around steps of ``p2o_core``.

prepare → init → [rollout → verify → mine → evolve → distill → evaluate] × iterations → report

``registry``    all stages by name                ``running/``    how a stage runs: checks, units, digests, the lock
``guard``       what may stop an update           ``health``      findings on a run, with advice
``benchmarks``  a trained policy on benchmarks    ``comparison``  arms × seeds, and ``evidence/``, its report
``parameters/`` params.yaml as one typed object   ``problems/``   data sets, their columns and answers
``preflight/``  doctor, dry run and planner       ``tracking/``   MLflow
"""
