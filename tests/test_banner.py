"""What `jobrunner up` tells one to try, by what the model takes."""

import json
from typing import Any

import pytest

from jobrunner.banner import example


@pytest.mark.parametrize("schema", [None, {"required": ["text"]}])
def test_a_model_that_takes_a_text_is_asked_with_one(schema: Any) -> None:
    path, body = example("mine", schema)

    assert path == "/predict"
    assert json.loads(body) == {"model": "mine", "text": "This product is amazing!"}


def test_the_default_model_need_not_be_named() -> None:
    assert json.loads(example("sentiment", None)[1]) == {"text": "This product is amazing!"}


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        ({"required": ["width", "height"]}, '{"input": {"width": …, "height": …}}'),
        ({"properties": {"width": {}}}, '{"input": {}}'),
    ],
)
def test_of_another_model_the_fields_that_it_needs_are_named(schema: Any, body: str) -> None:
    assert example("resize", schema) == ("/models/resize/predict", body)
