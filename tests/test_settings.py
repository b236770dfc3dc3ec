"""Settings: from the environment alone, checked at the start, and never quoted."""

from datetime import timedelta
from pathlib import Path

import pytest

from jobrunner.errors import SettingsError
from jobrunner.settings import child_environment, load, parse_duration, worker_environment

DEFAULTS = [
    ("DATABASE_URL", "database_url", None),
    ("JOBRUNNER_LISTEN_URL", "listen_url", None),
    ("JOBRUNNER_HOME", "home", Path(".jobrunner")),
    ("HOST", "host", "127.0.0.1"),
    ("PORT", "port", 8000),
    ("JOBRUNNER_WORKERS", "workers", 2),
    ("MOCK_DELAY_SECONDS", "mock_delay_seconds", 5),
    ("JOBRUNNER_DEVICE", "device", "auto"),
    ("JOBRUNNER_LEASE_SECONDS", "lease_seconds", 30),
    ("JOBRUNNER_POLL_SECONDS", "poll_seconds", 1),
    ("JOBRUNNER_GRACE_SECONDS", "grace_seconds", 25),
    ("JOBRUNNER_MAX_RESULT_BYTES", "max_result_bytes", 262_144),
    ("JOBRUNNER_WORKER_THREADS", "worker_threads", None),
    ("JOBRUNNER_WORKER_MEMORY", "worker_memory", None),
    ("JOBRUNNER_WORKER_MAX_JOBS", "worker_max_jobs", None),
    ("JOBRUNNER_DEVICES", "devices", ()),
    ("JOBRUNNER_RETENTION", "retention", timedelta(days=30)),
]

ANY_TEXT = {"HOST", "JOBRUNNER_HOME"}


@pytest.mark.parametrize(("variable", "field", "expected"), DEFAULTS)
def test_a_variable_that_is_unset_or_empty_has_its_default(
    variable: str, field: str, expected: object
) -> None:
    assert getattr(load({}), field) == expected
    assert getattr(load({variable: ""}), field) == expected


def test_these_are_all_the_settings() -> None:
    assert set(type(load({})).model_fields) == {field for _, field, _ in DEFAULTS}


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("DATABASE_URL", "postgresql://u:p@h:1/d", "database_url", "postgresql://u:p@h:1/d"),
        ("DATABASE_URL", "host=h dbname=d", "database_url", "host=h dbname=d"),
        ("JOBRUNNER_LISTEN_URL", "postgresql://h/d", "listen_url", "postgresql://h/d"),
        ("JOBRUNNER_HOME", "/srv/jobs", "home", Path("/srv/jobs")),
        ("HOST", "::", "host", "::"),
        ("PORT", "1", "port", 1),
        ("PORT", "65535", "port", 65535),
        ("JOBRUNNER_WORKERS", "1024", "workers", 1024),
        ("MOCK_DELAY_SECONDS", "0", "mock_delay_seconds", 0),
        ("MOCK_DELAY_SECONDS", "0.25", "mock_delay_seconds", 0.25),
        ("JOBRUNNER_DEVICE", "cuda", "device", "cuda"),
        ("JOBRUNNER_LEASE_SECONDS", "2", "lease_seconds", 2),
        ("JOBRUNNER_POLL_SECONDS", "0.05", "poll_seconds", 0.05),
        ("JOBRUNNER_GRACE_SECONDS", "0", "grace_seconds", 0),
        ("JOBRUNNER_MAX_RESULT_BYTES", "64", "max_result_bytes", 64),
        ("JOBRUNNER_WORKER_THREADS", "1", "worker_threads", 1),
        ("JOBRUNNER_WORKER_MEMORY", "64MB", "worker_memory", 64 * 2**20),
        ("JOBRUNNER_WORKER_MEMORY", "2GB", "worker_memory", 2 * 2**30),
        ("JOBRUNNER_WORKER_MAX_JOBS", "1", "worker_max_jobs", 1),
        ("JOBRUNNER_DEVICES", "0", "devices", ("0",)),
        ("JOBRUNNER_DEVICES", "1,GPU-8f3a/0", "devices", ("1", "GPU-8f3a/0")),
        ("JOBRUNNER_RETENTION", "12h", "retention", timedelta(hours=12)),
    ],
)
def test_a_good_value_is_taken(variable: str, value: str, field: str, expected: object) -> None:
    assert getattr(load({variable: value}), field) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "gibberish"),
        ("DATABASE_URL", "postgresql://u:%zz@h/d"),
        ("JOBRUNNER_LISTEN_URL", "gibberish"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PORT", "80.5"),
        ("JOBRUNNER_WORKERS", "0"),
        ("JOBRUNNER_DEVICE", "gpu"),
        ("JOBRUNNER_WORKERS", "1025"),
        ("JOBRUNNER_WORKERS", "many"),
        ("MOCK_DELAY_SECONDS", "-1"),
        ("MOCK_DELAY_SECONDS", "nan"),
        ("MOCK_DELAY_SECONDS", "inf"),
        ("MOCK_DELAY_SECONDS", "86401"),
        ("JOBRUNNER_LEASE_SECONDS", "1.9"),
        ("JOBRUNNER_LEASE_SECONDS", "86401"),
        ("JOBRUNNER_POLL_SECONDS", "0.04"),
        ("JOBRUNNER_POLL_SECONDS", "61"),
        ("JOBRUNNER_GRACE_SECONDS", "-0.1"),
        ("JOBRUNNER_GRACE_SECONDS", "86401"),
        ("JOBRUNNER_MAX_RESULT_BYTES", "63"),
        ("JOBRUNNER_MAX_RESULT_BYTES", "67108865"),
        ("JOBRUNNER_WORKER_THREADS", "0"),
        ("JOBRUNNER_WORKER_MEMORY", "63MB"),
        ("JOBRUNNER_WORKER_MEMORY", "2048"),
        ("JOBRUNNER_WORKER_MEMORY", "1.5GB"),
        ("JOBRUNNER_WORKER_MAX_JOBS", "0"),
        ("JOBRUNNER_DEVICES", ","),
        ("JOBRUNNER_DEVICES", "0,,1"),
        ("JOBRUNNER_RETENTION", "30"),
        ("JOBRUNNER_RETENTION", "36501d"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_the_variable(
    variable: str, value: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load({variable: value})

    message = str(refused.value)
    assert message.startswith(f"{variable}: should ")
    assert "\n" not in message


@pytest.mark.parametrize("variable", sorted({name for name, _, _ in DEFAULTS} - ANY_TEXT))
def test_the_message_never_quotes_the_value(variable: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({variable: "hunter2 hunter2"})

    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError, match="PORT: .*; JOBRUNNER_WORKERS: "):
        load({"PORT": "x", "JOBRUNNER_WORKERS": "0"})


def test_the_settings_do_not_show_the_password_when_they_are_printed() -> None:
    url = "postgresql://u:hunter2@h/d"

    assert "hunter2" not in repr(load({"DATABASE_URL": url, "JOBRUNNER_LISTEN_URL": url}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("45s", timedelta(seconds=45)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("0s", timedelta()),
        (" 7d ", timedelta(days=7)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7 d", "1.5h", "7D", "7dd", "٧d", "99999w"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="should be"):
        parse_duration(text)


def test_a_worker_finds_no_way_into_the_database_in_its_environment() -> None:
    secrets = {
        "DATABASE_URL": "postgresql://u:hunter2@h/d",
        "JOBRUNNER_LISTEN_URL": "postgresql://u:hunter2@h/d",
        "PGPASSWORD": "hunter2",
        "PGHOST": "h",
        "PGPASSFILE": "/pass",
        "PGSERVICEFILE": "/services",
    }
    harmless = {"PATH": "/bin", "HF_HOME": "/models", "PYTHONPATH": "/code"}

    assert worker_environment(secrets | harmless) == harmless


def test_the_numeric_libraries_of_a_worker_take_so_many_threads_unless_they_were_told() -> None:
    given = worker_environment({"MKL_NUM_THREADS": "7"}, threads=3)

    assert (given["OMP_NUM_THREADS"], given["MKL_NUM_THREADS"]) == ("3", "7")
    assert "CUDA_VISIBLE_DEVICES" not in given


def test_a_worker_sees_its_own_device_alone() -> None:
    assert worker_environment({"CUDA_VISIBLE_DEVICES": "0,1"}, device="1") == {
        "CUDA_VISIBLE_DEVICES": "1"
    }


def test_a_service_inherits_the_environment_with_changes() -> None:
    assert child_environment({"PORT": "1"}, {"PORT": "2", "PATH": "/bin"}) == {
        "PORT": "1",
        "PATH": "/bin",
    }
