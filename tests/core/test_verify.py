from __future__ import annotations

import pytest

from p2o_core.types import VerdictStatus
from p2o_core.verify import Verifier, VerifierUnavailable
from tests.clock import quiet_s

CASES = [
    ("so the answer is \\boxed{52}", "52", VerdictStatus.CORRECT),
    ("a +5 52 b +2 54 \\boxed{ 54 }", "54", VerdictStatus.CORRECT),
    ("\\boxed{\\frac{1}{2}}", "0.5", VerdictStatus.CORRECT),
    ("\\boxed{51}", "52", VerdictStatus.WRONG),
    ("", "52", VerdictStatus.UNPARSABLE),
    ("I do not know", "52", VerdictStatus.UNPARSABLE),
    ("\\boxed{", "52", VerdictStatus.UNPARSABLE),
]


def test_verdicts_are_typed_and_in_order(verifier: Verifier) -> None:
    verdicts = verifier.verify([(response, gold) for response, gold, _ in CASES])
    assert [v.status for v in verdicts] == [status for _, _, status in CASES]
    assert [v.reward for v in verdicts] == [float(status is VerdictStatus.CORRECT) for _, _, status in CASES]


def test_a_hanging_answer_is_killed_and_costs_the_others_nothing() -> None:
    endless = "\\boxed{(x+y)^{10000}}"
    pairs = [(f"\\boxed{{{n}}}", str(n)) for n in range(40)]
    with Verifier(workers=1, timeout_s=1.0) as verifier:
        verifier.verify([("\\boxed{1}", "1")])  # workers are up
        started = quiet_s()
        verdicts = verifier.verify([*pairs[:20], (endless, "3"), *pairs[20:]])
        seconds = quiet_s() - started
    assert verdicts[20].status is VerdictStatus.TIMEOUT
    assert all(v.status is VerdictStatus.CORRECT for i, v in enumerate(verdicts) if i != 20)
    assert seconds < 12, "one time-out and one new worker, not one time-out an answer"


def test_an_unreadable_gold_answer_is_an_error_not_a_wrong_answer(verifier: Verifier) -> None:
    (verdict,) = verifier.verify([("\\boxed{1}", "")])
    assert verdict.status is VerdictStatus.ERROR
    assert "gold" in verdict.extracted


def test_a_verifier_that_cannot_start_is_an_error_not_a_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with Verifier(workers=1, timeout_s=1.0) as verifier, pytest.raises(VerifierUnavailable, match="Mend"):
        verifier.verify([("\\boxed{1}", "1")])


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="workers"):
        Verifier(workers=0, timeout_s=1.0)
