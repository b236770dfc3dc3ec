"""What the models of texts share: how an input is read, and how an answer is written."""

from typing import Any


class InvalidInput(ValueError):
    """The input has no text; it never will."""

    retryable = False


def text_of(item: Any) -> str:
    """Give the text of an input.

    :raises InvalidInput: when there is none.
    """
    text = item.get("text") if isinstance(item, dict) else None
    if not isinstance(text, str):
        raise InvalidInput("the input has no text")
    return text


def judgement(positive: float) -> dict[str, Any]:
    """Write the answer of a model that gives the positive side so much weight, from 0 to 1."""
    if positive >= 0.5:
        return {"sentiment": "positive", "confidence": positive}
    return {"sentiment": "negative", "confidence": 1 - positive}
