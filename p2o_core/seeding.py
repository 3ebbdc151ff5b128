"""All randomness comes from (seed, iteration, stage) and, below that, from the names of what is drawn."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*path: int | str) -> int:
    """A 63-bit seed from a path such as ``(seed, iteration, "rollout", problem_id, sample)``.

    Hashing keeps streams apart however the numbers are chosen: (1, 12) and (11, 2) do not collide, and
    neighbouring seeds share nothing.

    >>> derive_seed(0, 1, "rollout") == derive_seed(0, 1, "rollout") != derive_seed(1, 0, "rollout")
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in path)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniforms(seed: int, count: int) -> np.ndarray:
    """[count] float64 uniforms in [0, 1) of one rollout's own stream.

    A rollout draws one number a token from its own stream, so what it samples does not depend on which other
    rollouts share its batch.
    """
    return np.random.Generator(np.random.Philox(key=seed)).random(count)
