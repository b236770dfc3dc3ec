"""What the labels of other people's classifiers say: which side, positive or negative.

The answer is the probability of a side, so that the labels of a side are added up: 4 and 5
stars are both positive. A neutral label counts half to either: a text that is surely neutral
has the confidence 0.5.
"""

from collections.abc import Mapping
from typing import Any

from jobrunner.errors import ModelLoadError

POSITIVE = {"positive", "pos", "very positive", "4 stars", "5 stars"}
NEGATIVE = {"negative", "neg", "very negative", "1 star", "2 stars"}
NEUTRAL = {"neutral", "neu", "3 stars"}
# What classifiers say that nobody has named: of two, the second is positive, as in SST-2, on
# which most of them were trained. With three it would be a guess.
UNNAMED = ["label_0", "label_1"]


def sides(names: Mapping[Any, str]) -> list[float]:
    """Give for each label, by its number, how much of it is positive: 0, 0.5 or 1.

    :param names: ``id2label`` of a ``config.json``.
    :raises ModelLoadError: when a label is unknown, or a side has none.
    """
    try:
        by_number = {int(number): str(name) for number, name in names.items()}
    except (AttributeError, TypeError, ValueError):
        raise ModelLoadError("id2label should give a name for each number") from None
    if sorted(by_number) != list(range(len(by_number))):
        raise ModelLoadError("id2label should have the numbers from 0 on")
    labels = [_plain(by_number[number]) for number in range(len(by_number))]
    if labels == UNNAMED:
        return [0.0, 1.0]
    found = [_side(label) for label in labels]
    if 0.0 not in found or 1.0 not in found:
        raise ModelLoadError(
            f"its labels {', '.join(labels)} have to be both, positive and negative"
        )
    return found


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split()).replace(
        "label ", "label_"
    )


def _side(label: str) -> float:
    if label in POSITIVE:
        return 1.0
    if label in NEGATIVE:
        return 0.0
    if label in NEUTRAL:
        return 0.5
    raise ModelLoadError(
        f"its label {label} is neither positive nor negative: name it in id2label of config.json"
    )
