"""What the options of the command say; each function's ValueError says how it should look."""

import math
import re

# The same as in sql/0004_create_model.sql: a name that the database refuses serves nobody.
MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
A_MODEL_NAME = (
    "a name of at most 63 lower-case letters, digits, dots, dashes and underscores, the first"
    " a letter or digit"
)

# The same as in sql/0021_create_api_key.sql.
CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# The whole key is taken as well, for its id; its secret is not repeated in any message.
KEY_ID = re.compile(r"(?:jr_)?([0-9a-f]{8})(?:_[A-Za-z0-9_-]{43})?")


def parse_model(text: str) -> tuple[str | None, str]:
    """Read ``NAME=IMPLEMENTATION``, or ``IMPLEMENTATION`` alone, of a model that says its name.

    :raises ValueError: when it is anything else, or no name that a job may ask for.
    """
    name, equals, implementation = text.partition("=")
    if not equals:
        name, implementation = "", text
    if not implementation or bool(name) != bool(equals):
        raise ValueError("should look like sentiment=mock or NAME=package.module:Class")
    return parse_model_name(name) if equals else None, implementation


def parse_model_name(text: str) -> str:
    """Read the name of a model.

    :raises ValueError: when it is none that a job may ask for.
    """
    if not MODEL_NAME.fullmatch(text):
        raise ValueError(f"should be {A_MODEL_NAME}")
    return text


def parse_seconds(text: str) -> float:
    """Read how long to wait, in seconds.

    :raises ValueError: when it is no number, below 0 or without end.
    """
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("should be a number of seconds") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("should be a number of seconds, 0 or more and finite")
    return seconds


def parse_interval(text: str) -> float:
    """Read how long to pause between two looks, in seconds.

    :raises ValueError: when it is no number from 0.2 to 3600.
    """
    seconds = parse_seconds(text)
    if not 0.2 <= seconds <= 3600:
        raise ValueError("should be a number of seconds from 0.2 to 3600")
    return seconds


def parse_client(text: str) -> str:
    """Read the name of a client.

    :raises ValueError: when it is none that a key may have.
    """
    if not CLIENT_NAME.fullmatch(text):
        raise ValueError(
            "should be a name of at most 63 letters, digits, dots, dashes and underscores,"
            " the first a letter or digit"
        )
    return text


def parse_key_id(text: str) -> str:
    """Read the id of an API key.

    :raises ValueError: when it is none.
    """
    if not (match := KEY_ID.fullmatch(text)):
        raise ValueError("should be the 8 digits of its id, see `jobrunner keys list`")
    return match[1]
