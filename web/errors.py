"""What can go wrong beside what HTTP has a status for, in one tree.

WebError
├── SettingsError
└── DatabaseUnavailable
    └── SchemaMissing

A class's docstring is its default message. Every message is one line for a person and holds
neither a secret nor an input text.
"""


class WebError(Exception):
    """Something went wrong in the web."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SettingsError(WebError):
    """A setting is not valid."""


class DatabaseUnavailable(WebError):
    """The database does not answer."""


class SchemaMissing(DatabaseUnavailable):
    """The tables are missing or too old: run `jobrunner migrate`."""
