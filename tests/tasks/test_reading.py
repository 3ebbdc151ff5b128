"""What a wrong params.yaml is answered with: line, field, and the field that was meant."""

from __future__ import annotations

import pytest

from p2o_core.schemas import BadInput
from tasks.parameters.experiment import check_experiment
from tasks.parameters.table import parameters

GOOD = """\
experiment: x
iterations: 2
rollout: {problems: 8, max_new_tokens: 8}
evaluate: {max_new_tokens: 8}
"""


@pytest.mark.parametrize(
    ("wrong", "line", "words"),
    [
        ("policy: {type: lora, rnak: 3}", 5, ["'policy.rnak'", "did you mean 'rank'?"]),
        ("policy: {rank: 3}", 5, ["'policy.rank'", "it belongs to type: lora"]),
        ("rank: 3", 5, ["'rank'", "did you mean 'policy.rank'?"]),
        ("engine:\n  type: vllm\n  max_model_lne: 3", 7, ["'engine.max_model_lne'", "'max_model_len'"]),
        ("engine:\n  type: server\n  urls: [a]\n  concurency: 3", 8, ["'engine.concurency'", "'concurrency'"]),
        (
            "evolve:\n  reflector:\n    type: teacher\n    base_ulr: x\n    model: y",
            8,
            ["'evolve.reflector.base_ulr'", "'base_url'"],
        ),
        (
            "prepare:\n  type: files\n  train:\n    - {name: gsm8k}\n    - {nmae: gsm8k}\n  heldout: a\n  policy: b",
            9,
            ["'prepare.train.1.nmae'", "'name'"],
        ),
        (
            "prepare: {type: files, train: a, heldout: b, policy: {type: hub, idd: x}}",
            5,
            ["'prepare.policy.idd'", "'id'"],
        ),
        ("prepare: {type: files, train: a, heldout: b, policy: c, phrases: 3}", 5, ["parameter 'prepare.phrases':"]),
        ("qqqq: 1", 5, ["'qqqq'", "docs/reference.md"]),
        ("mine: {window: 2}\nseed: 1\nmine: {window: 3}", 7, ["'mine' was set before in line 5"]),
        ("mine: {window: 2,\n  window: 3}", 6, ["'window' was set before in line 5"]),
        ("seed: [", 5, ["not readable as YAML"]),
    ],
)
def test_the_line_and_the_field_that_was_meant(wrong: str, line: int, words: list[str]) -> None:
    with pytest.raises(BadInput) as refusal:
        check_experiment(GOOD + wrong, name="p.yaml")
    message = next(text for text in str(refusal.value).splitlines() if words[0] in text)
    assert message.startswith(f"p.yaml: line {line}:")
    assert all(word in message for word in words), message
    assert "Mend: " in message


@pytest.mark.parametrize("name", sorted({p.name for p in parameters()} - {"experiment"}))
def test_every_field_is_suggested_for_a_slip_of_the_pen(name: str) -> None:
    """Misspelt at the top of the file, where any section's field may have been meant."""
    last = name.rpartition(".")[2]
    with pytest.raises(BadInput) as refusal:
        check_experiment(f"{GOOD}{last}_: 1\n", name="p.yaml")
    assert f"'{last}_'" in str(refusal.value)
    assert "did you mean" in str(refusal.value)


def test_words_are_those_of_yaml_1_2() -> None:
    """``off`` is a value of some fields, and no truth value there; a number may have an exponent without a point."""
    checked = check_experiment(GOOD + "distill: {template_mask: off, learning_rate: 1e-6, reuse: on}", name="p.yaml")
    assert (checked.distill.template_mask, checked.distill.learning_rate, checked.distill.reuse) == ("off", 1e-6, True)
