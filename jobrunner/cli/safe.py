"""Texts of users and models, as a terminal may be given them."""

import re

# Controls could steer a terminal, marks of direction turn what stands there around, and the
# separators break a line that is one.
UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def safe(text: str) -> str:
    """Write what could steer a terminal as JSON would: ``\\n``, ``\\u001b``.

    Of JSON, this makes JSON that says the same.
    """
    return UNSAFE.sub(_escape, text)


def safe_lines(text: str) -> str:
    """Do the same, but leave the lines that we have made ourselves."""
    return "\n".join(map(safe, text.split("\n")))


def _escape(found: re.Match[str]) -> str:
    return SHORT.get(found[0], f"\\u{ord(found[0]):04x}")
