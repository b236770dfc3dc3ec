"""VADER: a lexicon of English words, emoticons and emoji, and rules for what stands around them.

It needs nothing but the package ``vaderSentiment``, which holds the lexicon. Its compound score
goes from -1 to 1 and says how strong the words are, not how likely the judgement is to be
right. So the confidence, ``(1 + |compound|) / 2``, is no probability: it only orders texts, from
0.5 (nothing found: such a text counts as positive) to 1 (nothing but strong words).

:source: Hutto, C.J. & Gilbert, E.E. (2014), VADER: A Parsimonious Rule-based Model for Sentiment
    Analysis of Social Media Text.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from vaderSentiment import vaderSentiment as vader

from jobrunner.models.text import Review

# Without one of these, or an "n't", shortly before it no word's meaning is turned around.
TURNS = frozenset([*vader.NEGATE, "so", "this"])


class VaderSentiment:
    """Judges by VADER, as fast as that goes: a text costs less than handing it over."""

    timeout_seconds = 60.0
    # One at a time: there is nothing in a batch that it could share.
    max_batch_size = 1
    max_wait_ms = 0.0
    name = "sentiment"
    version = f"vader-{metadata.version('vaderSentiment')}"

    def setup(self) -> None:
        """Read the lexicon."""
        self._analyzer = Analyzer()

    def predict(self, item: Review) -> dict[str, Any]:
        """Judge a text."""
        compound = self._analyzer.polarity_scores(item["text"])["compound"]
        sentiment = "positive" if compound >= 0 else "negative"
        return {"sentiment": sentiment, "confidence": round((1 + abs(compound)) / 2, 4)}


class Analyzer(vader.SentimentIntensityAnalyzer):  # type: ignore[misc]
    """Scores as VADER does, to the last digit, but does not take seconds for a long text.

    VADER writes the whole text in lower case several times for each word of its lexicon that it
    finds, and then looks at no more than three words before that and two behind.
    """

    @staticmethod
    def _negation_check(valence: float, words: Sequence[str], start_i: int, i: int) -> float:
        first = max(0, i - 3)
        near = [word.lower() for word in words[first:i]]
        if not any(word in TURNS or "n't" in word for word in near):
            return valence
        check = vader.SentimentIntensityAnalyzer._negation_check
        turned: float = check(valence, [*near, ""], start_i, i - first)
        return turned

    @staticmethod
    def _special_idioms_check(valence: float, words: Sequence[str], i: int) -> float:
        check = vader.SentimentIntensityAnalyzer._special_idioms_check
        special: float = check(valence, words[i - 3 : i + 3], 3)
        return special
