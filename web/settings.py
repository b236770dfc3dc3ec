"""The settings, read from the environment once and validated. Nothing else reads it."""

import os
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated

import psycopg
from flask import current_app
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from web.errors import SettingsError


def check_database_url(url: str) -> str:
    """Refuse what libpq can't read, so that a typo shows at the start.

    :raises ValueError: without the URL, which may hold a password.
    """
    try:
        conninfo_to_dict(url)
    except psycopg.Error:
        raise ValueError("should be a PostgreSQL URL, postgresql://user@host/database") from None
    return url


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


DatabaseUrl = Annotated[str, AfterValidator(check_database_url)]


class Settings(BaseModel):
    """What the environment says, with defaults. Each alias is the variable's name."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    database_url: DatabaseUrl = Field(alias="DATABASE_URL", repr=False)
    listen_url: DatabaseUrl | None = Field(None, alias="JOBRUNNER_LISTEN_URL", repr=False)
    host: str = Field("127.0.0.1", alias="HOST", min_length=1)
    port: int = Field(8000, alias="PORT", ge=1, le=65535)
    processes: int = Field(2, alias="WEB_CONCURRENCY", ge=1, le=256)
    threads: int = Field(128, alias="WEB_THREADS", ge=1, le=1024)
    require_keys: bool = Field(False, alias="JOBRUNNER_REQUIRE_KEYS")
    max_attempts: int = Field(3, alias="JOBRUNNER_MAX_ATTEMPTS", ge=1, le=100)
    max_pending: int = Field(100_000, alias="JOBRUNNER_MAX_PENDING", ge=1, le=100_000_000)

    @property
    def open_to_all(self) -> bool:
        """Whether other machines may call, and nobody is asked for a key."""
        return not self.require_keys and not is_loopback(self.host)

    @property
    def most_waiting(self) -> int:
        """How many requests of a process may wait at once, so that threads are left: 96 of 128."""
        return self.threads * 3 // 4


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and validate the settings; a variable that is set but empty counts as unset.

    :raises SettingsError: naming each variable that is wrong, never its value.
    """
    names = [field.alias for field in Settings.model_fields.values() if field.alias]
    given = {name: environ[name] for name in names if environ.get(name)}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        faults = (f"{fault['loc'][0]}: {_plain(fault['msg'])}" for fault in error.errors())
        raise SettingsError("; ".join(faults)) from None


def get() -> Settings:
    """The settings of the current app."""
    settings: Settings = current_app.extensions["settings"]
    return settings


def _plain(message: str) -> str:
    if message == "Field required":
        return "is not set"
    return message.removeprefix("Value error, ").removeprefix("Input ")
