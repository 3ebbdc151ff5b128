"""Which completions make a group."""

from __future__ import annotations

from p2o_core.config import DistillConfig, RolloutConfig
from p2o_core.groups import build_groups
from p2o_core.policy import Policy
from p2o_core.rollout import reuse_winners
from p2o_core.types import Assignment, Completion, Judged, Problem, VerdictStatus

PROBLEMS = {id_: Problem(id_, "sum 4 a+5 ?", "9", "hard", "train") for id_ in ("hard", "easy")}
TEMPLATE = "Do not stop early."


def completion(problem: str, sample: int, template: str = "", token: int = 5) -> Completion:
    return Completion(problem, sample, template, "", (token,), (-0.5,), False)


COMPLETIONS = [completion("hard", 0), completion("easy", 0), completion("hard", 1), completion("hard", 2, TEMPLATE)]
VERDICTS = [Judged(c.problem_id, c.sample, VerdictStatus.WRONG, 0.0, "") for c in COMPLETIONS]


def shapes(groups: list) -> list[list[bool]]:
    return [[rollout.templated for rollout in group] for group in groups]


def test_bare_and_templated_completions_share_a_group(full_policy: Policy) -> None:
    groups = build_groups(full_policy.chat, PROBLEMS, COMPLETIONS, VERDICTS, DistillConfig())
    assert shapes(groups) == [[False, False, True], [False]]
    bare = full_policy.chat.encode_prompt("sum 4 a+5 ?", "")
    assert {rollout.prompt_ids for group in groups for rollout in group} == {bare}


def test_the_paper_s_variant_leaves_bare_completions_of_rescued_problems_out(full_policy: Policy) -> None:
    groups = build_groups(full_policy.chat, PROBLEMS, COMPLETIONS, VERDICTS, DistillConfig(hard_groups="templated"))
    assert sorted(shapes(groups)) == [[False], [True]]


def test_without_distillation_the_gradient_s_prompt_has_the_template(full_policy: Policy) -> None:
    (hard, _) = build_groups(full_policy.chat, PROBLEMS, COMPLETIONS, VERDICTS, DistillConfig(context="templated"))
    assert hard[2].prompt_ids == full_policy.chat.encode_prompt("sum 4 a+5 ?", TEMPLATE)
    assert hard[0].prompt_ids == full_policy.chat.encode_prompt("sum 4 a+5 ?", "")


def test_each_completion_of_the_search_is_reused_once() -> None:
    found = [completion("hard", 0, TEMPLATE, 6), completion("hard", 1, TEMPLATE, 7), completion("hard", 0, "Other.", 8)]
    wanted = [Assignment("hard", n, 1, TEMPLATE) for n in range(3)] + [Assignment("easy", 0, 1, TEMPLATE)]
    reused = reuse_winners(found, wanted, RolloutConfig(problems=2, samples=6, max_new_tokens=8))
    assert [(c.problem_id, c.sample, c.token_ids) for c in reused] == [("hard", 6, (6,)), ("hard", 7, (7,))]
