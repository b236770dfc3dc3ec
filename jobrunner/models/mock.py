"""The default model: takes its time and judges by a small list of words.

Its answer depends on the text alone, so that the same text always gives the same answer.
The confidence is a plausible number, not a probability.
"""

import re
from time import sleep
from typing import Any

from jobrunner.models.text import Review

PRAISE = frozenset(
    """
    amazing awesome beautiful best brilliant charming cheerful comfortable delicious delight
    delighted delightful easy efficient enjoy enjoyed enjoyable excellent excited exceptional
    fantastic fast favorite fine flawless friendly fun glad good gorgeous great happy helpful
    impressed impressive incredible joy liked love loved lovely magnificent marvelous
    nice outstanding perfect perfectly pleasant pleased pleasure recommend recommended reliable
    satisfied smooth solid stunning super superb terrific thank thanks thrilled top useful
    wonderful works worth
    """.split()
)
COMPLAINT = frozenset(
    """
    annoying angry awful bad boring bored broke broken bug bugs buggy cheap complain complaint
    crash crashed crashes cracked damaged defective delay delayed dirty disappointed
    disappointing disappointment disaster dreadful dull expensive fail failed fails failure
    faulty flawed fraud frustrated frustrating garbage hate hated horrible inferior junk late
    lie lousy mess mediocre miserable misleading missing nightmare noisy overpriced pathetic
    poor poorly problem problems refund regret ripoff rude sad scam slow sucks terrible trash
    ugly unacceptable unhappy unreliable unusable upset useless waste wasted weak worse worst
    worthless wrong
    """.split()
)
NEGATION = frozenset(
    "no not never neither nor none cannot cant dont doesnt didnt isnt wasnt wont without "
    "couldnt wouldnt shouldnt hardly barely".split()
)
# How many words back a negation reaches: "not a very good one".
REACH = 3
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


class MockSentiment:
    """Sleeps, then answers from the words of the text."""

    name = "sentiment"
    version = "mock-1"

    def __init__(self, delay_seconds: float = 5) -> None:
        self.delay_seconds = delay_seconds
        self.timeout_seconds = delay_seconds + 30

    def predict(self, item: Review) -> dict[str, Any]:
        """Judge the text after the delay."""
        sleep(self.delay_seconds)
        return judge(item["text"])


def judge(text: str) -> dict[str, Any]:
    """Count praise and complaint; a negation shortly before a word turns it around."""
    words = [word.lower().replace("'", "").replace("’", "") for word in WORD.findall(text)]
    votes = [_vote(words, place) for place in range(len(words))]
    praise, complaint = votes.count(1), votes.count(-1)
    sentiment = "positive" if praise >= complaint else "negative"
    return {"sentiment": sentiment, "confidence": _confidence(praise, complaint)}


def _vote(words: list[str], place: int) -> int:
    word = words[place]
    vote = (word in PRAISE) - (word in COMPLAINT)
    negated = any(before in NEGATION for before in words[max(0, place - REACH) : place])
    return -vote if negated else vote


def _confidence(praise: int, complaint: int) -> float:
    """Half without evidence; 0.95 for one clear word, a little more for each further one."""
    total = praise + complaint
    if total == 0:
        return 0.5
    clear = abs(praise - complaint) / total
    certain = 1 - 0.05 / abs(praise - complaint) if praise != complaint else 0.5
    return round(0.5 + (certain - 0.5) * clear, 2)
