"""MLflow: every iteration is logged there once, even when the store is away meanwhile.

``tracker``   logs it, from the artefacts on disk    ``points``   metric points, and which a run lacks
``parents``   an experiment's run, found or made     ``delivery`` how a delivery ended
``store``     where it is, and a new one made
"""
