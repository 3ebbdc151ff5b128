"""MLflow: every iteration is logged there once, even when the store is away meanwhile.

``tracker``   logs it, from the artefacts on disk    ``iterations``  what each iteration has there
``points``    metric points, and which a run lacks
``parents``   an experiment's run, found or made     ``delivery`` how a delivery ended
``children``  the runs of its iterations             ``records``  what is kept beside points, from these:
``prompts``   templates in the registry              ``models``   policies, and ``served``, one behind pyfunc
``traces``    rollouts that are shown whole          ``samples``  which ones
``contest``   a candidate against the champion       ``notes``    what the pages say of an experiment
``store``     where it is, and a new one made
"""
