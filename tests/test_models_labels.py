"""The labels of classifiers: those that are understood, and no guess about any other."""

import pytest

from jobrunner.errors import ModelLoadError
from jobrunner.models.folder import max_tokens
from jobrunner.models.labels import sides


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["NEGATIVE", "POSITIVE"], [0, 1]),
        (["positive", "negative"], [1, 0]),
        (["pos", "neg"], [1, 0]),
        (["Neg", "Neu", "Pos"], [0, 0.5, 1]),
        (["LABEL_0", "LABEL_1"], [0, 1]),
        (["1 star", "2 stars", "3 stars", "4 stars", "5 stars"], [0, 0, 0.5, 1, 1]),
        (["Very Negative", "Negative", "Neutral", "Positive", "Very Positive"], [0, 0, 0.5, 1, 1]),
        (["very_negative", "very-positive"], [0, 1]),
    ],
)
def test_a_label_that_is_known_has_a_side(names: list[str], expected: list[float]) -> None:
    assert sides({str(number): name for number, name in enumerate(names)}) == expected
    assert sides(dict(reversed(list(enumerate(names))))) == expected


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"0": "joy", "1": "anger"}, "its label joy is neither positive nor negative"),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, "its label label_0 is neither"),
        ({"0": "positive"}, "its labels positive have to be both"),
        ({"0": "positive", "1": "neutral"}, "its labels positive, neutral have to be both"),
        ({"0": "negative", "2": "positive"}, "the numbers from 0 on"),
        ({"a": "negative", "b": "positive"}, "a name for each number"),
        (["negative", "positive"], "a name for each number"),
        (None, "a name for each number"),
        ({}, "have to be both"),
    ],
)
def test_what_is_not_understood_is_refused(names: object, said: str) -> None:
    with pytest.raises(ModelLoadError, match=said):
        sides(names)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 512),
        ({"max_position_embeddings": 128}, 128),
        ({"max_position_embeddings": 4096}, 512),
        ({"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}, 512),
        ({"max_position_embeddings": 130, "model_type": "xlm-roberta", "pad_token_id": 1}, 128),
        ({"max_position_embeddings": -1}, 512),
    ],
)
def test_a_text_is_cut_off_at_what_the_model_can_take(
    config: dict[str, object], expected: int
) -> None:
    assert max_tokens(config) == expected
