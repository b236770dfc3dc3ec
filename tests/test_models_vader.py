"""VADER in the box: right on plain sentences, the same as the library, and fast on any text."""

import random
from importlib import metadata
from pathlib import Path
from time import process_time
from typing import Any

import pytest

pytest.importorskip("vaderSentiment", reason="the extra vader is not installed")

from vaderSentiment import vaderSentiment as original

from helpers import Jobs
from jobrunner.models import load
from jobrunner.models.vader import Analyzer
from processes import system

POSITIVE = [
    "This product is amazing!",
    "I love it, and so does my daughter.",
    "The waiter was friendly and the soup was excellent.",
    "Works perfectly; best purchase of the year.",
    "Not bad at all.",
    "A wonderful little book, charming from the first page to the last.",
    "Thank you for the quick and helpful answer :)",
    "The view is beautiful and the beds are comfortable.",
    "It never fails, which is why I trust it.",
    "Absolutely delighted with how it turned out",
    "The battery lasts two days, great!",
    "😍 so pretty",
]
NEGATIVE = [
    "This product is terrible.",
    "I hate the new version.",
    "The soup was cold and the waiter was rude.",
    "Broke after two days, a waste of money.",
    "Not good at all.",
    "A boring, pointless film with awful actors.",
    "Worst customer service ever!!!",
    "The room was dirty and smelled bad.",
    "I was very disappointed :(",
    "It isn't worth the price, and the support is useless.",
    "My order came damaged and nobody answers.",
    "😠 never again",
]
WORDS = [
    *"the a of it was and or nor but so this that no not never least very at in on".split(),
    *"without doubt kind of sort almost hardly GREAT good Bad terrible love hate".split(),
    *"isn't won't fine excellent ugly happy sad bomb the shit bad ass yeah right".split(),
    *"death kiss to die for bus stop beating heart :) :( !!! ??? 😍 😠 x".split(),
]


@pytest.fixture(scope="module")
def model() -> Any:
    model = load("vader", {})
    model.setup()
    return model


@pytest.mark.parametrize("text", POSITIVE)
def test_a_plain_praise_is_positive(model: Any, text: str) -> None:
    answer = model.predict({"text": text})

    assert answer["sentiment"] == "positive"
    assert 0.5 < answer["confidence"] <= 1


@pytest.mark.parametrize("text", NEGATIVE)
def test_a_plain_complaint_is_negative(model: Any, text: str) -> None:
    answer = model.predict({"text": text})

    assert answer["sentiment"] == "negative"
    assert 0.5 < answer["confidence"] <= 1


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n", ".", "a", "The table has four legs.", "これは素晴らしい", "ужасно", "مرحبا"],
)
def test_a_text_in_which_it_finds_nothing_has_half_the_confidence(model: Any, text: str) -> None:
    assert model.predict({"text": text}) == {"sentiment": "positive", "confidence": 0.5}


def test_more_of_the_same_gives_more_confidence(model: Any) -> None:
    texts = ["It is nice.", "It is very nice.", "It is VERY nice!!!", "Nice, lovely, great!"]

    confidences = [model.predict({"text": text})["confidence"] for text in texts]

    assert confidences == sorted(set(confidences))


def test_the_same_text_always_has_the_same_answer(model: Any) -> None:
    other = load("vader", {})
    other.setup()

    for text in POSITIVE + NEGATIVE:
        assert model.predict({"text": text}) == other.predict({"text": text})


def test_it_scores_as_the_library_does() -> None:
    ours, theirs, chance = Analyzer(), original.SentimentIntensityAnalyzer(), random.Random(1)
    texts = [" ".join(chance.choices(WORDS, k=chance.randrange(1, 14))) for _ in range(4000)]

    for text in [*POSITIVE, *NEGATIVE, *texts]:
        assert ours.polarity_scores(text) == theirs.polarity_scores(text), text


@pytest.mark.parametrize("words", ["a good ", "but good ", "good not ", "never so bad ", "😍", "x"])
def test_a_text_of_ten_thousand_characters_takes_no_second(model: Any, words: str) -> None:
    text = (words * 10_000)[:10_000]
    began = process_time()

    answer = model.predict({"text": text})

    assert process_time() - began < 0.5
    assert 0 <= answer["confidence"] <= 1


def test_its_version_is_that_of_the_library(model: Any) -> None:
    assert model.version == f"vader-{metadata.version('vaderSentiment')}"


@pytest.mark.process
def test_a_runner_serves_it(jobs: Jobs, runner_url: str, tmp_path: Path) -> None:
    good, bad = jobs.add(POSITIVE[0]), jobs.add(NEGATIVE[0])

    with system(runner_url, tmp_path) as processes:
        processes.runner("--workers", "1", "--model", "sentiment=vader")

        assert jobs.wait(good, "completed")["result"]["sentiment"] == "positive"
        assert jobs.wait(bad, "completed")["result"]["sentiment"] == "negative"
