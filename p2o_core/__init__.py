"""The P²O algorithm: no Prefect, MLflow or DVC below this line (import-linter checks it).

``types``       the data contract            ``schemas``     its parquet schemas and input checks
``seeding``     all randomness               ``templates``   T(x, z)
``engines``     rollout engines              ``verify``      math-verify in killable processes
``mining``      hard and near-hard samples   ``search``      GEPA over templates
``cover``       template set and assignment  ``advantages``  ``losses``  the mathematics of the update
``policy``      weights, LoRA, log-probs     ``update``      the training step
``evaluation``  avg@k, pass@k
"""
