"""One P²O iteration on the micro-world, under a minute of CPU time, nearly all of it for pre-training the base policy.

No Prefect, DVC, MLflow, files or network. Run it as ``python examples/one_iteration.py``.
"""

import random
from functools import partial

import torch

from microworld.corpus import draw_text
from microworld.pretrain import PretrainSettings, pretrain
from microworld.problems import draw_split
from microworld.sentences import phrase_pool
from microworld.tokenizer import build_tokenizer
from p2o_core import Iteration, IterationConfig, Memory, p2o_iteration
from p2o_core.config import DistillConfig, EvolveConfig, RolloutConfig
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.prompts import Chat
from p2o_core.verify import Verifier

TINY = partial(PretrainSettings, hidden_size=96, layers=3, heads=4, texts_per_step=48, adamw_lr=4e-3, muon_lr=0.02)
BASE = TINY(seed=0, steps=400)
CORPUS = partial(draw_text, lengths=(1, 2, 3, 4), fitting_share=0.4, bare_share=0.2)
"""A policy that solves chains of up to four steps when it is told to go on, and stops early when it is not."""
CONFIG = IterationConfig(
    rollout=RolloutConfig(problems=24, samples=6, temperature=1.0, max_new_tokens=28),
    evolve=EvolveConfig(min_hard=6, dev_size=6, samples_per_score=4, solved_at=0.5, max_metric_calls=150),
    distill=DistillConfig(groups_per_minibatch=8, learning_rate=2e-4),
)


def main() -> Iteration:
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    _, model = next(pretrain(BASE, tokenizer, CORPUS))
    policy = Policy(model, Chat(tokenizer))
    optimizer = PolicyOptimizer(policy, CONFIG.distill)
    train = list(draw_split(random.Random(0), "train", [("easy", 1, 24), ("hard", 4, 48)], taken=set()))
    engine, phrases = EmbeddedEngine(policy, rows_per_batch=256), phrase_pool(seed=0)
    with Verifier(workers=1, timeout_s=5.0) as verifier:
        values = (policy, optimizer, engine, verifier, train, phrases, CONFIG)
        done = p2o_iteration(*values, Memory(), iteration=1, seed=0)  # the next one starts from done.memory
    rewards = [verdict.reward for verdict in done.verdicts[len(done.bare) :]]
    print(f"hard at the bare prompt: {len(done.hard)} of {CONFIG.rollout.problems} problems")
    print(f"templates kept: {[template.text for template in done.search.kept]}")
    print(f"solved under them: {sum(rewards):.0f} of {len(rewards)} completions")
    print(f"groups with signal: {done.report.groups_with_signal}; optimiser steps: {done.report.steps}")
    return done


if __name__ == "__main__":
    main()
