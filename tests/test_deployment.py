"""The files that deploy it keep their promises: read, and run as far as Docker is not needed."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from deploy_files import ROOT, need, procfile
from helpers import wait_for
from jobrunner import database, embedded, migrations
from jobrunner import settings as jobrunner_settings
from jobrunner.binaries import find_binaries
from jobrunner.errors import EmbeddedError
from web import __main__ as web_program
from web import settings as web_settings

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ["secrets", "migrate", "web", "jobrunner"]
LOGINS = {"migrate": "owner_login", "web": "web_login", "jobrunner": "runner_login"}


def dockerfile(instruction: str) -> list[str]:
    """The arguments of each such instruction, in order."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction}\s+(.*)$", text, re.MULTILINE)


def environment(service: str) -> dict[str, str]:
    """What a service is told when nothing is set on the machine that runs compose."""
    given = SERVICES[service].get("environment", {})
    return {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in given.items()}


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


# The image


def test_the_image_is_a_slim_python_and_runs_as_a_fixed_user_who_is_not_root() -> None:
    assert {image.split(" ")[0] for image in dockerfile("FROM")} == {"python:3.13-slim"}
    assert dockerfile("USER")[-1] == "10001:10001"


def test_the_image_holds_no_embedded_postgresql_and_no_test_tools() -> None:
    (install,) = [command for command in dockerfile("RUN") if " install " in command]

    assert install.endswith(" .")
    assert "[" not in install


def test_the_image_is_made_of_nothing_but_what_it_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [
        source
        for copied in dockerfile("COPY")
        if not copied.startswith("--from")
        for source in copied.split()[:-1]
    ]

    assert ignored[1] == "*"
    assert {f"!{source}" for source in sources} == {
        line for line in ignored if line.startswith("!")
    }
    assert all((ROOT / source).exists() for source in sources)


def test_what_is_run_from_the_image_s_share_is_copied_there() -> None:
    said = (ROOT / "docker-compose.yml").read_text() + "".join(
        path.read_text() for path in (ROOT / "deploy" / "kubernetes").rglob("*.yaml")
    )
    (copied,) = [it for it in dockerfile("COPY") if it.endswith("/opt/jobrunner/share/")]

    run = set(re.findall(r"/opt/jobrunner/share/(\w+\.py)", said))

    assert {f"deploy/{name}" for name in run} == set(copied.split()[:-1])


def test_the_image_serves_the_web_if_it_is_told_nothing() -> None:
    assert yaml.safe_load(dockerfile("CMD")[-1]) == procfile()["web"]


# The shape of compose


def judged(path: Path) -> subprocess.CompletedProcess[str]:
    """What the schema of the Compose Specification says of a file; it is in the package."""
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True,
        text=True,
        check=False,
    )


def test_compose_is_what_the_compose_specification_says() -> None:
    done = judged(ROOT / "docker-compose.yml")

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("stop_grace_period:", "stop_grace:"),
        ("restart: unless-stopped", "restart: [always]"),
        ("condition: service_healthy", "condition: service_ready"),
        ("internal: true", "internal: [true]"),
    ],
)
def test_what_the_compose_specification_does_not_know_is_refused(
    right: str, wrong: str, tmp_path: Path
) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    spoiled = tmp_path / "docker-compose.yml"
    spoiled.write_text(text.replace(right, wrong, 1))

    assert right in text
    assert judged(spoiled).returncode == 1


def test_docker_takes_compose_without_a_word() -> None:
    need("docker")
    docker = ["docker", "compose"]
    if subprocess.run([*docker, "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker knows no compose")
    done = subprocess.run(
        [*docker, "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


# The commands


def test_the_procfile_and_compose_start_the_same_commands() -> None:
    assert procfile() == {
        "release": SERVICES["migrate"]["command"],
        "web": SERVICES["web"]["command"],
        "jobrunner": SERVICES["jobrunner"]["command"],
    }


def test_the_web_of_jobrunner_up_is_the_one_that_is_deployed() -> None:
    up = pytest.importorskip("jobrunner.up")

    # `python -m web` gives gunicorn what it is given here.
    assert up.WEB == ["-P", "-m", "web"]
    assert procfile()["web"] == ["gunicorn", "-c", web_program.CONFIG, web_program.APP]
    assert up.RUNNER == ["-m", *procfile()["jobrunner"]]


# The services


def test_one_service_follows_the_other() -> None:
    waits = {
        name: {other: wait["condition"] for other, wait in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }

    assert waits == {
        "secrets": {},
        "postgres": {"secrets": "service_completed_successfully"},
        "migrate": {"postgres": "service_healthy"},
        "web": {"migrate": "service_completed_successfully"},
        "jobrunner": {"migrate": "service_completed_successfully"},
    }


def test_what_should_run_on_is_watched_and_started_again() -> None:
    for name, service in SERVICES.items():
        lasting = name not in ("secrets", "migrate")
        assert ("healthcheck" in service) is lasting, name
        assert (service.get("restart") == "unless-stopped") is lasting, name


def test_only_the_web_can_be_reached_from_outside() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"web"}
    assert SERVICES["web"]["ports"] == ["${PORT:-8000}:8000"]
    assert COMPOSE["networks"]["database"]["internal"] is True
    for name in ("postgres", "migrate", "jobrunner"):
        assert SERVICES[name]["networks"] == ["database"]
    assert SERVICES["secrets"]["network_mode"] == "none"


def test_our_services_can_change_nothing_on_their_disk_and_have_no_privileges() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["init"] is True
        assert ("user" in service) is ("cap_add" in service) is (name == "secrets")


def test_there_may_be_several_of_each_but_the_database() -> None:
    assert not any("container_name" in service for service in SERVICES.values())
    assert not any("hostname" in service for service in SERVICES.values())
    # No port or address that only one of them could have, and no number of them that is fixed.
    for key in ("ports", "expose", "scale", "deploy", "mac_address"):
        assert key not in SERVICES["jobrunner"]
    assert isinstance(SERVICES["jobrunner"]["networks"], list)


def test_the_scaling_that_its_head_tells_of_is_of_a_service_that_may_be_several() -> None:
    head = (ROOT / "docker-compose.yml").read_text().split("\n\n")[0]
    scaled = re.findall(r"--scale (\w+)=\d+", (ROOT / "docker-compose.yml").read_text())

    assert "docker compose up --build --scale jobrunner=" in head
    assert set(scaled) == {"jobrunner"}
    assert scaled[0] in SERVICES


def test_the_image_is_built_once_and_never_fetched() -> None:
    assert [name for name in OURS if "build" in SERVICES[name]] == ["secrets"]
    assert {SERVICES[name]["image"] for name in OURS} == {"jobrunner:local"}
    assert {SERVICES[name]["pull_policy"] for name in OURS} == {"never"}


def test_the_data_are_kept_where_the_image_of_postgresql_18_has_them() -> None:
    assert SERVICES["postgres"]["image"] == "postgres:18"
    assert "postgres_data:/var/lib/postgresql" in SERVICES["postgres"]["volumes"]


def test_what_is_mounted_is_there() -> None:
    named = set(COMPOSE["volumes"])
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in named or (ROOT / source).is_file(), source


def test_a_runner_may_use_its_grace_before_it_is_killed() -> None:
    grace = float(environment("jobrunner")["JOBRUNNER_GRACE_SECONDS"])

    assert seconds(SERVICES["jobrunner"]["stop_grace_period"]) > grace + 10


def test_the_defaults_of_compose_are_those_of_the_programs() -> None:
    url = "postgresql://somebody@postgres/jobrunner"
    for service, settings in (("web", web_settings), ("jobrunner", jobrunner_settings)):
        told = environment(service) | {"DATABASE_URL": url}
        place = {name: told[name] for name in ("HOST", "PORT") if name in told}

        assert settings.load(told) == settings.load({"DATABASE_URL": url} | place)


def test_every_setting_can_be_given_to_compose() -> None:
    elsewhere = {"JOBRUNNER_LISTEN_URL", "JOBRUNNER_HOME", "HOST", "PORT"}
    for service, settings in (("web", web_settings), ("jobrunner", jobrunner_settings)):
        known = {field.alias for field in settings.Settings.model_fields.values()}

        assert known - elsewhere <= set(environment(service)), service


# The secrets


# (JOBRUNNER_REQUIRE_KEYS says whether keys are asked for.)
SECRET = "PASSWORD|SECRET|KEY(?!S)|TOKEN"


def test_no_password_is_in_an_environment() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search(SECRET, name) or name.endswith("_FILE")
            assert not re.search(r"://[^/@]*:[^/@]*@", value)
    for text in dockerfile("ENV") + dockerfile("ARG"):
        assert not re.search(SECRET, text)


def test_each_service_logs_in_as_itself_and_sees_its_own_password_only() -> None:
    for service, login in LOGINS.items():
        assert SERVICES[service]["environment"]["DATABASE_URL"] == (
            f"postgresql://{login}@postgres/jobrunner?passfile=/run/secrets/{service}/pgpass"
        )
        assert SERVICES[service]["volumes"] == [
            f"{service}_secrets:/run/secrets/{service}:ro",
        ]


@dataclass(frozen=True)
class Secrets:
    root: Path

    def make(self) -> str:
        """Make them as the service ``secrets`` does; what it said."""
        script = ROOT / "deploy" / "make_secrets.py"
        uid = str(os.geteuid())
        done = subprocess.run(
            [sys.executable, str(script), "--root", str(self.root)]
            + ["--postgres-uid", uid, "--service-uid", uid],
            capture_output=True,
            text=True,
            check=True,
        )
        return str(done.stdout)

    def files(self) -> dict[str, str]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_text() for path in found}


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    """Empty volumes, mounted as compose does."""
    for volume in SERVICES["secrets"]["volumes"]:
        (tmp_path / volume.split(":/run/secrets/")[1]).mkdir(parents=True)
    return Secrets(tmp_path)


def test_the_passwords_are_random_and_each_is_another(secrets: Secrets) -> None:
    secrets.make()

    files = secrets.files()
    passwords = {name: text.strip() for name, text in files.items() if "postgres/" in name}
    assert set(passwords) == {"postgres/superuser", *(f"postgres/{it}" for it in LOGINS.values())}
    assert len(set(passwords.values())) == 4
    assert all(len(password) >= 32 for password in passwords.values())
    for service, login in LOGINS.items():
        expected = f"*:*:*:{login}:{passwords[f'postgres/{login}']}\n"
        assert files[f"{service}/pgpass"] == expected


def test_only_its_reader_can_read_a_password(secrets: Secrets) -> None:
    secrets.make()

    for name in secrets.files():
        assert (secrets.root / name).stat().st_mode & 0o777 == 0o600, name


def test_a_second_start_changes_no_password_and_names_none(secrets: Secrets) -> None:
    said = secrets.make()
    first = secrets.files()

    assert secrets.make() == ""
    assert secrets.files() == first
    assert not any(text.strip() in said for text in first.values())


def test_a_lost_password_file_is_written_again(secrets: Secrets) -> None:
    secrets.make()
    first = secrets.files()
    (secrets.root / "web" / "pgpass").unlink()
    (secrets.root / "web" / "pgpass.part").write_text("cut off")

    secrets.make()

    assert secrets.files() == first


# The database of compose, made by the files that make it there


@dataclass(frozen=True)
class Deployed:
    server: embedded.Server
    secrets: Secrets
    binaries: Path

    def create_logins(self, secrets: Path) -> subprocess.CompletedProcess[str]:
        """Run the script as the image postgres does, but over TCP."""
        password = (self.server.home / "password").read_text().strip()
        place = {"PGHOST": "127.0.0.1", "PGPORT": str(self.server.port), "PGPASSWORD": password}
        script = ROOT / "deploy" / "postgres" / "create_logins.sql"
        return subprocess.run(
            [str(self.binaries / "psql"), "-v", "ON_ERROR_STOP=1", "--username", "postgres"]
            + ["--no-password", "--no-psqlrc", "--dbname", "jobrunner", "-f", str(script)]
            + ["-v", f"secrets={secrets}"],
            env=os.environ | place,
            capture_output=True,
            text=True,
            check=False,
        )

    def url(self, service: str) -> str:
        """Where compose sends a service, but here."""
        url = environment(service)["DATABASE_URL"]
        here = url.replace("@postgres/", f"@127.0.0.1:{self.server.port}/")
        return here.replace("/run/secrets", str(self.secrets.root))

    def connect(self, service: str) -> database.BoundedConnection:
        return database.connect(self.url(service))


def binaries_of(version: int) -> Path:
    try:
        return find_binaries(version)
    except EmbeddedError:
        pytest.skip(f"no PostgreSQL {version} on this machine")


@pytest.fixture(scope="module", params=[15, 16, 18])
def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    binaries = binaries_of(request.param)
    secrets = Secrets(tmp_path_factory.mktemp("secrets"))
    for name in ("postgres", *LOGINS):
        (secrets.root / name).mkdir()
    secrets.make()
    home = tmp_path_factory.mktemp("postgres")
    options = {"fsync": "off", "log_statement": "all"}
    server = embedded.Server(home, binaries=binaries, options=options)
    server.start()
    try:
        deployed = Deployed(server, secrets, binaries)
        made = deployed.create_logins(secrets.root / "postgres")
        assert made.returncode == 0, made.stderr
        with deployed.connect("migrate") as connection:
            migrations.migrate(connection)
        yield deployed
    finally:
        server.stop()


def test_the_owner_migrates_and_is_no_superuser(deployed: Deployed) -> None:
    with deployed.connect("migrate") as connection:
        assert all(migration.applied_at for migration in migrations.status(connection))
        row = connection.execute(
            "select rolsuper, rolbypassrls, rolreplication"
            " from pg_roles where rolname = current_user"
        ).fetchone()

    assert row == (False, False, False)


def test_the_web_inserts_and_is_refused_everything_else(deployed: Deployed) -> None:
    with deployed.connect("web") as connection:
        acts = connection.execute("select session_user, current_user").fetchone()
        connection.execute("""insert into job (input) values ('{"text": "I love it"}')""")

        for statement in (
            "update job set priority = 1",
            "delete from job",
            "truncate job",
            "insert into job (input, status) values ('{}', 'completed')",
            "create table mine (id integer)",
            "set role job_runner",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)

    assert acts == ("web_login", "job_web")


def test_the_owner_sees_who_holds_a_lock_and_can_end_it(deployed: Deployed) -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text()
    [query] = re.findall(r"^select\n    waiting\.pid,[^;]+", runbook, re.MULTILINE)
    with deployed.connect("migrate") as owner, deployed.connect("web") as holder:
        holder.execute("begin")
        holder.execute("select pg_advisory_xact_lock(7)")
        with deployed.connect("web") as waiting:
            waiting.pgconn.send_query(b"select pg_advisory_xact_lock(7)")

            cursor = owner.cursor(row_factory=dict_row)
            row = wait_for(lambda: cursor.execute(query.encode()).fetchone(), "who holds it")

            assert (row["held_by"], row["of_user"]) == (holder.info.backend_pid, "web_login")
            assert "pg_advisory_xact_lock(7)" in row["query"]
            ended = owner.execute("select pg_terminate_backend(%s)", [row["held_by"]]).fetchone()
            assert ended == (True,)
            while waiting.pgconn.get_result():
                pass
        with pytest.raises(psycopg.OperationalError):
            holder.execute("select")


def test_a_runner_acts_as_job_runner_and_deletes_as_job_janitor(deployed: Deployed) -> None:
    with deployed.connect("jobrunner") as connection:
        acts = connection.execute("select session_user, current_user").fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from job")
        with connection.transaction():
            connection.execute("set local role job_janitor")
            connection.execute("delete from job where finished_at < now()")

    assert acts == ("runner_login", "job_runner")


def test_a_login_has_no_rights_of_its_own(deployed: Deployed) -> None:
    for service in ("web", "jobrunner"):
        with deployed.connect(service) as connection:
            connection.execute("set role none")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("select count(*) from job")


def test_the_logins_are_not_made_without_their_passwords(
    deployed: Deployed, tmp_path: Path
) -> None:
    made = deployed.create_logins(tmp_path)

    assert made.returncode != 0
    assert "already exists" not in made.stderr


def test_no_password_is_in_the_log_of_the_database(deployed: Deployed) -> None:
    log = deployed.server.log.read_text()

    assert "insert into migration" in log
    for name, text in deployed.secrets.files().items():
        assert name.endswith("pgpass") or text.strip() not in log, name


def health(deployed: Deployed) -> int:
    """Run the health check of the service ``jobrunner`` on this machine."""
    _, program, script, *arguments = SERVICES["jobrunner"]["healthcheck"]["test"]
    assert program == "python"
    here = script.replace("/opt/jobrunner/share", str(ROOT / "deploy"))
    told = os.environ | {"DATABASE_URL": deployed.url("jobrunner")}
    return subprocess.run(
        [sys.executable, here, *arguments], env=told, stderr=subprocess.DEVNULL, check=False
    ).returncode


@pytest.mark.parametrize("deployed", [18], indirect=True)
def test_a_runner_is_healthy_while_the_database_hears_of_it(deployed: Deployed) -> None:
    assert health(deployed) == 1

    with deployed.connect("jobrunner") as connection:
        connection.execute(
            """
            insert into runner (id, host, pid, version, models, workers, ready_workers, lease)
            values ('it', %s, 1, '1', '{sentiment}', 1, 1, '30 s')
            """,
            [socket.gethostname()],
        )
        assert health(deployed) == 0

        connection.execute("update runner set heartbeat_at = now() - interval '1 minute'")
        assert health(deployed) == 1


def test_the_web_is_healthy_when_it_is_ready() -> None:
    check = SERVICES["web"]["healthcheck"]["test"][-1]

    assert "http://127.0.0.1:8000/readyz" in check
    assert environment("web")["PORT"] == "8000"
