"""Several processes train one policy: ``policy.processes``.

``team``      who they are, how they share rows and add up  ``tensors``  whole tensors and the shards of them
``policy``    the policy in shards, or an adapter in each   ``job``      what a stage asks for and gets, as files
``launch``    starts them with torchrun, ends them          ``worker``   what each of them runs

Nothing of the training step is here: every process runs :func:`p2o_core.update.update_policy` on its share of the rows.
"""
