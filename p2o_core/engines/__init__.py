"""Rollout engines behind the Protocol in ``base``. ``embedded`` (transformers) is the default.

Nothing is imported here: who only needs the Protocol does not pay seconds for torch.
"""
