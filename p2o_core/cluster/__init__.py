"""Rollouts and verification on a Ray cluster. Nothing of Ray is imported before one is asked for (extra "scale").

``connection``   the cluster: one of this machine's, or one that runs already
``crew``         actors of one kind: back-pressure, restarts, each part answered once
``engine``       the engine "ray"                    ``verifier``   its verifiers
``workers``      what runs in an actor               ``weights``    policy folders through the object store

Ray pickles what it sends from process to process. That is trusted code on a trusted cluster; what a model wrote is in
there as texts and numbers alone, and is parsed where it always is: in a verifier's processes, which can be killed.
"""
