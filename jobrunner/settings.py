"""The settings, read from the environment once and validated.

Nothing else reads the environment. Times are in seconds where the name says so.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from jobrunner.errors import SettingsError

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# An age that PostgreSQL can still take from the present.
MAX_DURATION = timedelta(days=36500)
SIZES = {"M": 2**20, "G": 2**30}
LEAST_MEMORY = 64 * 2**20


def parse_duration(value: object) -> timedelta:
    """Read ``30d``, ``12h``, ``90m``, ``45s`` or ``2w``.

    :raises ValueError: when it is anything else.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", str(value).strip())
    if not match:
        raise ValueError("should be a number and a unit, like 30d, 12h, 90m or 45s")
    duration = timedelta(**{UNITS[match[2]]: int(match[1])})
    if duration > MAX_DURATION:
        raise ValueError("should be at most 36500d")
    return duration


def parse_size(value: object) -> int:
    """Read ``512MB`` or ``2GB``, as powers of 1024, in bytes.

    :raises ValueError: when it is anything else, or less than a worker needs.
    """
    match = re.fullmatch(r"([0-9]{1,6})([MG])B", str(value).strip())
    if not match:
        raise ValueError("should be a number and a unit, like 512MB or 2GB")
    size = int(match[1]) * SIZES[match[2]]
    if size < LEAST_MEMORY:
        raise ValueError("should be at least 64MB")
    return size


def parse_devices(value: object) -> tuple[str, ...]:
    """Read a list of GPUs, by number or by UUID: ``0,1``.

    :raises ValueError: when one of them is neither.
    """
    devices = tuple(str(value).split(","))
    if not all(re.fullmatch(r"[A-Za-z0-9/_-]{1,80}", device) for device in devices):
        raise ValueError("should be a list like 0,1")
    return devices


def check_url(url: str) -> str:
    """Refuse what libpq can't read, so that a typo shows at the start.

    :raises ValueError: without the URL, which may hold a password.
    """
    try:
        conninfo_to_dict(url)
    except psycopg.Error:
        raise ValueError("should be a PostgreSQL URL, postgresql://user@host/database") from None
    return url


Size = Annotated[int, BeforeValidator(parse_size)]
Devices = Annotated[tuple[str, ...], BeforeValidator(parse_devices)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
DatabaseUrl = Annotated[str, AfterValidator(check_url)]


class Settings(BaseModel):
    """What the environment says, with defaults. Each alias is the variable's name."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    database_url: DatabaseUrl | None = Field(None, alias="DATABASE_URL", repr=False)
    listen_url: DatabaseUrl | None = Field(None, alias="JOBRUNNER_LISTEN_URL", repr=False)
    home: Path = Field(Path(".jobrunner"), alias="JOBRUNNER_HOME")
    host: str = Field("127.0.0.1", alias="HOST", min_length=1)
    port: int = Field(8000, alias="PORT", ge=1, le=65535)
    workers: int = Field(2, alias="JOBRUNNER_WORKERS", ge=1, le=1024)
    mock_delay_seconds: float = Field(5, alias="MOCK_DELAY_SECONDS", ge=0, le=86400)
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", alias="JOBRUNNER_DEVICE")
    lease_seconds: float = Field(30, alias="JOBRUNNER_LEASE_SECONDS", ge=2, le=86400)
    poll_seconds: float = Field(1, alias="JOBRUNNER_POLL_SECONDS", ge=0.05, le=60)
    grace_seconds: float = Field(25, alias="JOBRUNNER_GRACE_SECONDS", ge=0, le=86400)
    max_result_bytes: int = Field(262_144, alias="JOBRUNNER_MAX_RESULT_BYTES", ge=64, le=67_108_864)
    worker_threads: int | None = Field(None, alias="JOBRUNNER_WORKER_THREADS", ge=1, le=1024)
    worker_memory: Size | None = Field(None, alias="JOBRUNNER_WORKER_MEMORY")
    worker_max_jobs: int | None = Field(None, alias="JOBRUNNER_WORKER_MAX_JOBS", ge=1)
    devices: Devices = Field((), alias="JOBRUNNER_DEVICES")
    retention: Duration = Field(timedelta(days=30), alias="JOBRUNNER_RETENTION")


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


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")


# What a worker must not see: the way into the database.
SECRET_VARIABLES = re.compile(r"DATABASE_URL|JOBRUNNER_LISTEN_URL|PG[A-Z]+")


# Each library would take all cores for itself, in each worker.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


def worker_environment(
    environ: Mapping[str, str] = os.environ,
    *,
    threads: int | None = None,
    device: str | None = None,
) -> dict[str, str]:
    """Give the environment of a worker: without what leads into the database.

    Of ``threads`` the numeric libraries take so many, unless the environment says otherwise;
    of the GPUs ``device`` is all that is seen.
    """
    kept = {name: value for name, value in environ.items() if not SECRET_VARIABLES.fullmatch(name)}
    if threads is not None:
        kept = dict.fromkeys(THREAD_VARIABLES, str(threads)) | kept
    return kept if device is None else kept | {"CUDA_VISIBLE_DEVICES": device}


def child_environment(
    changes: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Give the environment with changes, for a service of this project."""
    return {**environ, **changes}


# What the libraries of Hugging Face look at, once, when they are imported.
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


def stay_offline(environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell the libraries of Hugging Face, before they are imported, to download nothing."""
    environ.update(dict.fromkeys(OFFLINE, "1"))
