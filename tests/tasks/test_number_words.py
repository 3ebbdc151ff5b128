"""Number words: the grammar, and shards that share nothing."""

from __future__ import annotations

import random

from tasks.problems.generators import NumberWords, number_words

UNITS = {
    word: n
    for n, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}
TEENS = {
    f"{word}teen": n
    for word, n in zip(["thir", "four", "fif", "six", "seven", "eigh", "nine"], range(13, 20), strict=True)
}
TENS = {
    f"{word}ty": 10 * n
    for word, n in zip(["twen", "thir", "for", "fif", "six", "seven", "eigh", "nine"], range(2, 10), strict=True)
}


def value(words: str) -> int:
    """What number words say, read independently of how they are made."""
    if " thousand" in words:
        thousands, rest = words.split(" thousand")
        return 1000 * value(thousands) + (value(rest) if rest else 0)
    total = 0
    for word in words.replace("-", " ").replace(" and ", " ").split():
        total = total * 100 if word == "hundred" else total + (UNITS | TEENS | TENS)[word]
    return total


def test_every_number_is_written_as_it_is_read() -> None:
    for numbers in (range(1000), range(1000, 1_000_000, 997), range(3000, 3200), range(200_000, 200_150)):
        assert [value(number_words(n)) for n in numbers] == list(numbers)
    assert number_words(749) == "seven hundred and forty-nine"


def test_shards_share_nothing_and_the_tier_is_the_number_of_digits() -> None:
    drawn = [list(NumberWords(digits=(1, 2, 3), count=1000, shard=s).records(random.Random(0))) for s in (0, 1)]
    ids = [{record["id"] for record in records} for records in drawn]
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 1000, "and leave none out"
    for record in drawn[0]:
        assert record["difficulty"] == f"{len(record['answer'])}-digit"
        assert record["question"].startswith(f"What is {number_words(int(record['answer']))} as")
    few = list(NumberWords(digits=(3,), count=5).records(random.Random(1)))
    assert few == list(NumberWords(digits=(3,), count=5).records(random.Random(1)))
    assert len(few) == 5
