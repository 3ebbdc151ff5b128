"""MLflow: what an iteration is there, told once, whether the store is at home or not.

``tracker``   tells it, from the artefacts on disk   ``points``   metric points, and which a run lacks
``parents``   an experiment's run, found or made     ``delivery`` how a delivery ended
``store``     where it is, and a new one made
"""
