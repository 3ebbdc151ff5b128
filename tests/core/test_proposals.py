"""What becomes a candidate: parsing, validation and the leak guard."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.search.proposals import ProposalGuard, Refusal, number, numbers_in, parse_proposal
from p2o_core.search.reflection import PROMPT
from p2o_core.types import Problem

QUESTION = "A bakery sells muffins in boxes of six and cookies by the dozen every morning."
ANSWERS = ["1234", "\\frac{1}{2}", "57%", "x^2 + 3", "\\text{east}", "B", "$17.50", "12 \\text{ cm}"]
HARD = [Problem(f"p{i}", f"{QUESTION[:-1]} on day {i}?", answer, "hard", "train") for i, answer in enumerate(ANSWERS)]
HARD += [Problem("short", "What is 61 + 78?", "139", "hard", "train")]


def guard(hard: list[Problem] = HARD) -> ProposalGuard:
    return ProposalGuard(hard, max_characters=400, asked=PROMPT)


@pytest.mark.parametrize(
    ("reply", "template"),
    [
        ("```\nAdd the tens first.\n```", "Add the tens first."),
        (
            "Here is the new instruction:\n\n```text\nAdd the tens first.\n```\nI hope this helps.",
            "Add the tens first.",
        ),
        ("```\nold\n``` is bad, better:\n```\nAdd the tens first.\n```", "Add the tens first."),
        ('```\n"Add the tens first."\n```', "Add the tens first."),
        ("```\nInstruction: “Add the tens first.”\n```", "Add the tens first."),
        ("Sure! ```Add the tens first.```", "Add the tens first."),
        ("```\nAdd the tens first.\nThen the ones.\n```\n```\n```", "Add the tens first.\nThen the ones."),
        ("```Add the tens first.\nThen the ones.```", "Add the tens first.\nThen the ones."),
        ("````text\nAdd the tens first.\n````", "Add the tens first."),
        ("```text Add the tens first.```", "Add the tens first."),
        ("```\nAdd the tens first.\n```\nIt is better because of its ```clarity```.", "Add the tens first."),
        ("```\n<new_instruction>\nAdd the tens first.\n</new_instruction>\n```", "Add the tens first."),
        ("```new instruction\nAdd the tens first.\n```", "Add the tens first."),
        ("```markdown\n# Instruction\nAdd the tens first.\n```", "Add the tens first."),
        ("```\n**New instruction:** Add the tens first.\n```", "Add the tens first."),
        ("<reasoning>```\nold\n```</reasoning>\n```\nAdd the tens first.\n```", "Add the tens first."),
        ("[THINK]```old```[/THINK]```\nAdd the tens first.\n```", "Add the tens first."),
        ("I thought a while.</thinking>\n```\nAdd the tens first.\n```", "Add the tens first."),
        ("```\nWrite <reasoning> steps </reasoning> first.\n```", "Write <reasoning> steps </reasoning> first."),
        ("<think>``` and ``` what?</think>```\nAdd the tens first.\n```", "Add the tens first."),
        ("<think>```</think>```\nAdd the tens first.\n```", "Add the tens first."),
    ],
)
def test_parsing(reply: str, template: str) -> None:
    assert parse_proposal(reply) == template


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        ("Add the tens first.", Refusal.UNFENCED),
        ("Sure! Here is a better instruction: Add the tens first.", Refusal.UNFENCED),
        ("**Instruction:** Add the tens first.", Refusal.UNFENCED),
        ('{"instruction": "Add the tens first."}', Refusal.UNFENCED),
        ("<think>Let me see. Add the tens first.", Refusal.UNCLOSED),
        ("<think>Maybe\n```\nAdd the tens first.\n```\nbut hmm", Refusal.UNCLOSED),
        ("<Thinking>\n```\nAdd the tens first.\n```\n", Refusal.UNCLOSED),
        ("Well. <reasoning>\n```\nAdd the tens first.\n```", Refusal.UNCLOSED),
        ("<|channel|>analysis<|message|>```\nAdd the tens first.\n```", Refusal.UNCLOSED),
        ("```\nold\n```\n<thinking>Better:\n```\nAdd the tens first.\n```", Refusal.UNCLOSED),
        ("````\nAdd the tens first:\n```\n1 + 1\n```\n````", Refusal.RESIDUE),
        ("````\nAdd the tens first:\n```\n1 + 1\n```\n", Refusal.UNCLOSED),
        ("```\n<new_instruction>\nAdd the tens first.\n```", Refusal.RESIDUE),
        ("```\nAdd the tens first, then", Refusal.UNCLOSED),
        ("Here it is:\n```text\nAdd the tens first.", Refusal.UNCLOSED),
        ("```\nold\n``` is bad, better:\n```\nAdd the tens first.", Refusal.UNCLOSED),
        ("I'm sorry, I can't help with that.", Refusal.DECLINED),
        ("```\nI’m sorry, but I can’t assist with that request.\n```", Refusal.DECLINED),
        ("```\nI cannot write an instruction for these.\n```", Refusal.DECLINED),
        ("```\nUnfortunately, I cannot do this.\n```", Refusal.DECLINED),
        ("```\nI am unable to help.\n```", Refusal.DECLINED),
        ("```\nWork. As an AI language model I do not add.\n```", Refusal.DECLINED),
        ("", Refusal.BLANK),
        (" \n\t ", Refusal.BLANK),
        ("```\n```", Refusal.BLANK),
        ("``` \n \n ```", Refusal.BLANK),
        ("```\n...\n```", Refusal.BLANK),
        ("```\n42\n```", Refusal.BLANK),
        ("```\n<your new instruction>\n```", Refusal.RESIDUE),
        ("```\n[insert the instruction here]\n```", Refusal.RESIDUE),
        ('```json\n{"instruction": "Add."}\n```', Refusal.RESIDUE),
        ('```\n{"instruction": "Add the tens first."}\n```', Refusal.RESIDUE),
        ('```\n["Add the tens.", "Add the ones."]\n```', Refusal.RESIDUE),
        ("```python\nprint('Add')\n```", Refusal.RESIDUE),
        ("```\ndef solve(x):\n    return x\n```", Refusal.RESIDUE),
        ("```\n" + "Add the tens.\n" * 8 + "```", Refusal.REPETITIVE),
        ("```\nAdd add add add add\n```".lower(), Refusal.REPETITIVE),
        ("```\nFirst think about it well. " + "Then check the sum again, and " * 5 + "\n```", Refusal.REPETITIVE),
        (PROMPT, Refusal.ECHOED),
        ("```\nWrite a better instruction: one that helps the assistant to solve problems.\n```", Refusal.ECHOED),
        ("```\nthe new instruction\n```", Refusal.ECHOED),
    ],
)
def test_what_small_models_write_instead_is_refused(reply: str, refusal: Refusal) -> None:
    assert guard().judge(parse_proposal(reply)) is refusal


REFUSALS = [
    "I must refuse to write this.",
    "I will not be able to help with this request.",
    "I cannot assist with that.",
    "I'd rather not do that.",
    "Unable to comply with this request.",
    "I regret that I can't help.",
    "Please provide the problems so that I can help you.",
    "It seems that you have not provided any examples. Could you share them?",
    "No, I won't do that.",
    "Sorry, I can't.",
    "Apologies, but this is not possible.",
    "I have to decline.",
    "I am afraid I cannot help.",
    "对不起，我无法完成这个请求。",
    "Lo siento, no puedo ayudar con eso.",
    "I'm just an AI and cannot do this.",
    "As a language model, I can't.",
    "We cannot fulfil this request.",
    "This request violates my guidelines.",
    "Thank you. I can not provide an instruction for that.",
]
PLACEHOLDERS = [
    "N/A",
    "None",
    "TODO",
    "new instruction",
    "your instruction here",
    "...the improved instruction...",
    "Instruction",
    "Insert your prompt here.",
    "Clarity",
]
SPOKEN = [
    "I will not skip steps; I compute each one and then put the result in a box.",
    "Act as an AI math tutor. Work step by step and box the answer.",
    "As an AI assistant, solve each problem step by step.",
    "I do each step in order.",
    "Don't guess. Compute each step, then put it in a box.",
    "Please provide the answer in \\boxed{} after your steps.",
    "If you cannot see the way, start from the end.",
    "You are unable to use a calculator, so do each sum by hand.",
    "Use this template: first the tens, then the ones.",
    "Refuse to guess; do not answer before you have checked.",
    "一步一步地计算，然后把答案写进方框。",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_no_candidate_fenced_or_not(text: str) -> None:
    assert guard([]).judge(parse_proposal(f"```\n{text}\n```")) is Refusal.DECLINED
    assert parse_proposal(text) is Refusal.DECLINED


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_no_candidate(text: str) -> None:
    assert isinstance(guard([]).judge(parse_proposal(f"```\n{text}\n```")), Refusal)


@pytest.mark.parametrize("text", SPOKEN)
def test_instructions_that_sound_like_refusals(text: str) -> None:
    assert guard([]).judge(parse_proposal(f"```\n{text}\n```")) is None


@pytest.mark.parametrize(
    "leak",
    [
        "The answer is 1234.",
        "Remember 1,234 well.",
        "Write 1234.0 in the end.",
        "1{,}234 is what you want.",
        "Say 1 2 3 4 slowly.",
        "Say １２３４.",
        "Say 12\u200b34.",
        "One half: 0.5",
        "Use 1/2 here.",
        "Answer \\dfrac{1}{2}.",
        "It is 50% of all.",
        "About 57 percent.",
        "Try x^2+3.",
        "Try $ x^{2} + 3 $ or x^2 + 3.",
        "The answer is east.",
        "Choose \\boxed{B}.",
        "The answer: (B)",
        "Pay 17.5 dollars.",
        "It is 12 cm long.",
        "twelve is a good guess",
        "139",
        "The sum is139.",
    ],
)
def test_every_planted_answer_is_refused(leak: str) -> None:
    assert guard().judge(leak) is Refusal.LEAKED_ANSWER


@pytest.mark.parametrize(
    "leak",
    [
        "When a bakery sells muffins in boxes of six and cookies, add them.",
        "For example: what is 61 + 78?",
        "WHAT IS  61+78 ? Add the tens.",
    ],
)
def test_every_planted_problem_is_refused(leak: str) -> None:
    assert guard().judge(leak) is Refusal.LEAKED_PROBLEM


HONEST = [
    "Work step by step and write the final answer in \\boxed{}.",
    "Add the ones first, carry when the sum reaches ten, then add the tens.",
    "Write each number above the other, align the digits, and add column by column.",
    "A good approach: say the units, then the tens, then put them together.",
    "Check your result by subtracting one number from it.",
    "Let's think about what is asked before calculating.",
    "Break the numbers apart: 40 + 8 is easier than 48.",
    "Be careful with carries. Do not guess.",
    "Give only the number.",
    "If the sum of two digits is 10 or more, carry 1.",
]


def test_honest_templates_pass() -> None:
    refused = [template for template in HONEST if guard().judge(template)]
    assert refused == []


def test_the_price_of_the_guard() -> None:
    """Numbers in an honest example are refused when a hard problem happens to have them as its answer: with ten hard
    sums of two digits that is one template in ten here. Refusing too much costs a reflection, letting a leak through
    costs the result."""
    sums = [Problem(f"s{n}", f"What is {n} + {n + 3}?", str(2 * n + 3), "hard", "train") for n in range(21, 31)]
    refused = [template for template in HONEST if ProposalGuard(sums, max_characters=400).judge(template)]
    assert len(refused) <= 1


@pytest.mark.parametrize(
    ("proposal", "refusal"),
    [
        ("", Refusal.BLANK),
        (" \n ", Refusal.BLANK),
        ("x" * 401, Refusal.TOO_LONG),
        ("Work.<|im_end|>", Refusal.RESIDUE),
        ("```\nWork.", Refusal.RESIDUE),
        ("Work.</instruction>", Refusal.RESIDUE),
    ],
)
def test_junk_is_refused(proposal: str, refusal: Refusal) -> None:
    assert guard().judge(proposal) is refusal


def test_a_proposal_is_accepted_once() -> None:
    judge = guard().judge
    assert judge("Work slowly.") is None
    assert judge("Work slowly.") is Refusal.REPEATED


@given(
    value=st.integers(100, 10**7),
    words=st.lists(st.sampled_from(["add", "carry", "check", "then", "write", "first"]), min_size=1, max_size=8),
    where=st.integers(0, 8),
    form=st.sampled_from(["{}", "{:,}", "{}.0", "\\boxed{{{}}}", "${}$", "\\frac{{{}}}{{1}}", "({})", "{}%", "+{}"]),
)
def test_an_answer_is_found_wherever_and_however_it_stands(value: int, words: list[str], where: int, form: str) -> None:
    problem = Problem("p", "How many?", str(value), "hard", "train")
    said = [*words[:where], form.format(value), *words[where:]]
    assert ProposalGuard([problem], max_characters=400).judge(" ".join(said)) is Refusal.LEAKED_ANSWER


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    proposal, judge = parse_proposal(text), guard().judge
    first, again = judge(proposal), judge(proposal)
    assert again is (Refusal.REPEATED if first is None else first), "a refusal stays; what was accepted is known"


def test_numbers() -> None:
    assert set(numbers_in("1,234 or \\frac{3}{4}, 5% and seven")) >= {
        Fraction(1234),
        Fraction(3, 4),
        Fraction(1, 20),
        7,
    }
    assert number("\\frac{-3}{4}") == Fraction(-3, 4)
    assert number("90^\\circ") == 90
    assert number("x+1") is None


@pytest.mark.parametrize("leak", ["Write 0.5.", "It is \\tfrac12, so to speak: 1/2.", "Say 2^{-1} aloud.", "A 3^4 b."])
def test_every_spelling_of_an_answer_is_guarded(leak: str) -> None:
    spelt = Problem("p", "How much?", "2^{-1}", "hard", "train", alternatives=("\\frac{1}{2}", "3^4 "))
    assert guard([spelt]).judge(leak) is Refusal.LEAKED_ANSWER
    assert guard([spelt]).judge("Add the tens first.") is None
