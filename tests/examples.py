"""Labelled sentences to train on: made of parts, so that what was held out is told by words."""

import csv
import random
from pathlib import Path

THINGS = [
    "The phone",
    "This book",
    "Their service",
    "My room",
    "That soup",
    "The film",
    "Our guide",
]
VERBS = ["is", "was", "turned out to be", "seems"]
PRAISE = "great excellent wonderful amazing friendly perfect beautiful delightful lovely".split()
COMPLAINT = "awful terrible horrible broken rude useless ugly disappointing dreadful".split()
ENDS = ["", " indeed", ", really", ", as ever", ", to be honest", ", I think"]


def sentences(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Give so many different texts with their labels, half of them positive."""
    chance = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        label, words = [("positive", PRAISE), ("negative", COMPLAINT)][len(found) % 2]
        first, second = chance.sample(words, 2)
        thing, verb, end = chance.choice(THINGS), chance.choice(VERBS), chance.choice(ENDS)
        found[f"{thing} {verb} {first} and {second}{end}."] = label
    return list(found.items())


def write_csv(
    file: Path, rows: list[tuple[str, str]], head: tuple[str, str] = ("text", "sentiment")
) -> Path:
    """Write the rows under their head."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([head, *rows])
    return file
