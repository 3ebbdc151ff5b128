"""What stands where in a model's reply: its thinking, fenced blocks, labels; and is it an instruction at all?"""

from __future__ import annotations

import re

FENCE = "```"
BLOCK = re.compile(
    r"(?P<at>^[ \t]*)?(?P<fence>`{3,})(?:(?P<kind>[\w+-]*)[ \t]*\n)?(?P<block>.*?)(?<!`)(?P=fence)(?!`)", re.M | re.S
)
"""A fence closes with as many backticks as it opened with, so that a longer one may hold shorter ones."""
PROSE = {"", "text", "txt", "plain", "plaintext", "markdown", "md", "instruction", "instructions", "prompt", "template"}
"""What stands behind an opening fence in front of words; anything else (python, json) announces code."""
LABEL = re.compile(
    r"\A\s*(?:here(?:'s| is| are)[^\n]{0,120}:|sure[^\n]{0,80}[:!]|(?:text|txt|plaintext|markdown|md)(?=[ \t]+\S)"
    r"|[#*_ \t]*(?:(?:the|your|my) )?(?:(?:new|improved|revised|better|updated|final) )*"
    r"(?:instruction|template|prompt)s?[*_ \t]*(?::[*_]*|\n))\s*",
    re.IGNORECASE,
)
ENCLOSING = re.compile(r"\A<([\w-]+)>\s*(.*?)\s*</\1>\Z", re.DOTALL)
QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}

_THOUGHT = "think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad"
_OPENED = re.compile(rf"<({_THOUGHT})>|\[(think)\]|◁(think)▷|<\|channel\|>(analysis)", re.IGNORECASE)
_CLOSED = re.compile(r"</think(?:ing)?>|\[/think\]|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE)
"""Ends whose beginning may stand in the chat template."""


def without_thinking(reply: str) -> str | None:
    """The reply without what the model thought before its first fence; None where it had not ended thinking."""
    while (opened := _OPENED.search(reply)) and opened.start() < (reply.find(FENCE) % (len(reply) + 1)):
        name = next(filter(None, opened.groups()))
        closed = re.compile(rf"</{name}>|\[/{name}\]|◁/{name}▷|<\|channel\|>final", re.IGNORECASE)
        end = closed.search(reply, opened.end())
        if end is None:
            return None
        reply = reply[: opened.start()] + reply[end.end() :]
    return _CLOSED.split(reply)[-1]


def fenced(reply: str) -> tuple[list[tuple[str, str]], str]:
    """``(kind, content)`` of each fenced block, and what stands around them. Where blocks begin lines, those within a
    line (a word in backticks) are left out."""
    found = list(BLOCK.finditer(reply))
    blocks = [block for block in found if block["at"] is not None] or found
    return [(block["kind"] or "", block["block"]) for block in blocks], BLOCK.sub("", reply)


def bare(proposal: str) -> str:
    """A block's text without label, enclosing tag and enclosing quotes."""
    before = None
    while before != proposal:
        before = proposal
        proposal = LABEL.sub("", proposal.strip()).strip()
        if enclosed := ENCLOSING.match(proposal):
            proposal = enclosed[2]
        if len(proposal) > 1 and QUOTES.get(proposal[0]) == proposal[-1]:
            proposal = proposal[1:-1].strip()
    return proposal


_WHO = r"\b(?:i|we)"
_NOT_ABLE = (
    rf"{_WHO} (?:can['’]?t|can ?not|could not|couldn['’]?t)|{_WHO}(?:['’]?m| am|['’]?re| are) (?:not able|unable) to"
    rf"|{_WHO}(?: will|['’]ll) not be able to|{_WHO} won['’]?t be able to"
)
_NOT_WILLING = rf"{_WHO} (?:will not|won['’]?t|do not|don['’]?t|would rather not|should not)|{_WHO}['’]d rather not"
_SERVE = r"(?:help|comply|assist|fulfil|fulfill|engage|participate|do (?:this|that|so|it)|respond)\b"
_PRODUCE = (
    r"(?:write|provide|answer|create|generate|produce|complete|offer|give you|share|see|process|access|improve)\b"
)
_MORE = r"(?:[a-z]+ly |really |just )?"
_OTHER_LANGUAGES = (
    "对不起|(?:很|非常)?抱歉|我(?:无法|不能)|對不起|我無法|申し訳|すみません|죄송|lo siento|lamento|no puedo|"
    "(?:je suis )?désolée?|je ne peux pas|es tut mir leid|entschuldigung|leider kann ich|"
    "извините|простите|мне жаль|к сожалению|я не могу|desculpe|mi dispiace|não posso|non posso"
)
DECLINED = re.compile(
    rf"\A\W*(?:(?:i['’]?m|i am|we['’]?re|we are) (?:[a-z]+ )?(?:sorry|afraid|unable|not able)"
    rf"|{_WHO} (?:apologi[sz]e|regret)|my apologies|apologies\b|sorry\b|unable to\b|{_OTHER_LANGUAGES})"
    rf"|(?:{_NOT_ABLE}) {_MORE}(?:{_SERVE}|{_PRODUCE})|(?:{_NOT_WILLING}) {_MORE}{_SERVE}"
    rf"|{_WHO} (?:must |have to |need to |will |should )?(?:respectfully |politely )?(?:decline|refuse)\b"
    r"|\bi(?:['’]?m| am) (?:just |only )?an? (?:ai|artificial|(?:large )?language model)\b"
    r"|\bas an? (?:(?:ai|artificial intelligence|large) )*language model\b"
    r"|\b(?:violates?|against) (?:my|our) \w+|\bthis request (?:violates|cannot|can['’]?t|is not)\b"
    r"|\bso (?:that )?i can (?:help|assist|write|create|improve)\b|\byou (?:have not|haven['’]?t|did not|didn['’]?t) "
    r"(?:provided?|given?|shared?|included?)\b|\bcould you (?:please )?(?:share|provide|send|clarify)\b",
    re.IGNORECASE,
)
"""A model that speaks of itself instead of to the assistant: it cannot or will not serve, or asks for what it has."""
PLACEHOLDER = re.compile(
    r"\W*(?:n/?a|none|null|nil|to ?do|tb[ad]|empty|nothing|undefined|placeholder|lorem ipsum\b.*"
    r"|(?:(?:insert|write|put|add|enter|paste) )?(?:(?:the|your|my|an?|new|improved|revised|better|final|updated) )*"
    r"(?:instruction|template|prompt|text)s?(?: (?:goes|comes|is))?(?: here)?)\W*",
    re.IGNORECASE | re.DOTALL,
)


def declines(text: str) -> bool:
    """It refuses, or asks back."""
    return DECLINED.search(text) is not None


def is_placeholder(text: str) -> bool:
    """It stands for an instruction (``your instruction here``, ``N/A``), or is one English word."""
    return PLACEHOLDER.fullmatch(text) is not None or (text.isascii() and len(text.split()) == 1)
