"""Several processes train one policy: ``policy.processes``.

``team``      who they are, how they share rows and add up  ``tensors``  whole tensors and the shards of them
``policy``    the policy in shards, or an adapter in each   ``job``      what a stage asks for and gets, as files
``perform``   the job's work, in one process or several     ``worker``   what each of several runs
``launch``    starts them with torchrun, ends them

Nothing of the training step is here: every process runs :func:`p2o_core.update.update_policy` on its share of the rows.
"""
