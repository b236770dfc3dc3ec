"""Migrations: each file of ``sql/`` once, in order, whole or not at all, on every PostgreSQL."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import RFC_4122, UUID

import psycopg
import pytest
from psycopg import sql

from helpers import POSITIVE, Jobs, login_url, wait_for
from jobrunner import database, embedded, heartbeat, migrations, queue
from jobrunner.binaries import find_binaries
from jobrunner.errors import DatabaseError, EmbeddedError, MigrationError, SchemaMissing
from jobrunner.migrations import Migration
from jobrunner.outcome import Failure, Outcome

Db = psycopg.Connection[Any]

ROLES = ["job_web", "job_runner", "job_janitor"]
APPLIED = "select version, name, sha256 from migration order by version"


def database_url(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def sweep(url: str) -> None:
    """Make a database as empty as a new one: to make a new one takes ten times as long."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("drop schema public cascade")
        admin.execute("create schema public authorization pg_database_owner")
        admin.execute("grant usage on schema public to public")


@pytest.fixture(scope="module")
def used_url(server: embedded.Server) -> Iterator[str]:
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("create database another")
        yield database_url(server.url, "another")
        admin.execute("drop database another with (force)")


@pytest.fixture
def url(used_url: str) -> str:
    """The address of an empty database."""
    sweep(used_url)
    return used_url


@pytest.fixture
def fresh(url: str) -> Iterator[database.BoundedConnection]:
    """A connection to an empty database."""
    with database.connect(url) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``sql/`` to write to, which the migrations read instead."""
    for file in resources.files("jobrunner_sql").iterdir():
        if file.name.endswith(".sql"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(migrations, "resources", SimpleNamespace(files=lambda _: tmp_path))
    return tmp_path


def next_version() -> int:
    return migrations.available()[-1].version + 1


def add_file(folder: Path, name: str, text: str) -> int:
    version = next_version()
    (folder / f"{version:04d}_{name}.sql").write_text(text)
    return version


def migrate(url: str, report: Callable[[Migration], None] = lambda _: None) -> list[int]:
    """Migrate as a program does; return the versions that it applied."""
    with database.connect(url) as connection:
        return [migration.version for migration in migrations.migrate(connection, report)]


def every_version() -> list[int]:
    return [migration.version for migration in migrations.available()]


def at_once(*calls: Callable[[], list[int]]) -> list[list[int]]:
    """Make the calls in a thread each, all at the same moment."""
    barrier = Barrier(len(calls))

    def call(this: Callable[[], list[int]]) -> list[int]:
        barrier.wait(10)
        return this()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def is_waiting(db: Db, pid: int) -> bool:
    query = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    row = db.execute(query, [pid]).fetchone()
    return bool(row and row[0])


# The files.


def test_files_are_numbered_without_a_gap() -> None:
    files = [file.name for file in resources.files("jobrunner_sql").iterdir()]

    numbers = sorted(int(name[:4]) for name in files if name.endswith(".sql"))

    assert numbers == list(range(1, len(numbers) + 1))
    assert every_version() == numbers


@pytest.mark.parametrize("migration", migrations.available(), ids=lambda found: found.name)
def test_a_file_says_what_it_does_in_its_name_and_its_first_line(migration: Migration) -> None:
    verb, *rest = migration.name.split("_")

    assert verb in {"create", "guard", "notify", "add", "drop", "alter", "grant", "index"}
    assert rest
    assert migration.sql.startswith("-- ")


def test_other_files_are_not_migrations(folder: Path) -> None:
    before = every_version()

    for name in ("README.md", "0099_create.sql", "99_create_x.sql", "0099_create_x.sql.orig"):
        (folder / name).write_text("select 1 / 0")

    assert every_version() == before


# Applying.


def test_an_empty_database_gets_every_file_in_order(fresh: database.BoundedConnection) -> None:
    reported: list[Migration] = []

    applied = migrations.migrate(fresh, reported.append)

    assert applied == reported == migrations.available()
    ledger = fresh.execute(APPLIED).fetchall()
    assert ledger == [(file.version, file.name, file.sha256) for file in applied]


def test_applying_twice_does_nothing(fresh: database.BoundedConnection) -> None:
    migrations.migrate(fresh)
    before = fresh.execute("select version, applied_at from migration").fetchall()

    applied = migrations.migrate(fresh)

    assert applied == []
    assert fresh.execute("select version, applied_at from migration").fetchall() == before


def test_only_what_is_new_is_applied(fresh: database.BoundedConnection, folder: Path) -> None:
    migrations.migrate(fresh)
    version = add_file(folder, "create_note", "create table note (id integer)")

    applied = migrations.migrate(fresh)

    assert [migration.version for migration in applied] == [version]
    assert fresh.execute("select to_regclass('note') is not null").fetchone() == (True,)


def test_the_state_of_an_empty_database_is_that_everything_is_pending(
    fresh: database.BoundedConnection,
) -> None:
    state = migrations.status(fresh)

    assert state == migrations.available()
    assert {migration.applied_at for migration in state} == {None}
    assert fresh.execute("select to_regclass('migration')").fetchone() == (None,)


def test_the_state_says_what_is_applied_and_what_is_pending(
    fresh: database.BoundedConnection, folder: Path
) -> None:
    migrations.migrate(fresh)
    version = add_file(folder, "create_note", "create table note (id integer)")

    state = migrations.status(fresh)

    pending = [migration.version for migration in state if migration.applied_at is None]
    assert pending == [version]
    assert len(state) == version


def test_the_ledger_is_readable_by_every_role(fresh: database.BoundedConnection) -> None:
    migrations.migrate(fresh)

    for role in ROLES:
        with fresh.transaction():
            fresh.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
            assert len(fresh.execute(APPLIED).fetchall()) == len(every_version())


# What is refused.


def test_a_file_that_was_edited_after_it_was_applied_is_refused(
    fresh: database.BoundedConnection,
) -> None:
    migrations.migrate(fresh)
    fresh.execute("update migration set sha256 = repeat('0', 64) where version = 2")

    with pytest.raises(MigrationError, match="0002_guard_job was edited after it was applied"):
        migrations.migrate(fresh)

    with pytest.raises(MigrationError, match="0002_guard_job was edited"):
        migrations.status(fresh)


def test_an_edit_of_one_comment_is_an_edit(fresh: database.BoundedConnection, folder: Path) -> None:
    migrations.migrate(fresh)
    file = folder / "0004_create_model.sql"
    file.write_text(file.read_text() + "-- nothing\n")
    add_file(folder, "create_note", "create table note (id integer)")

    with pytest.raises(MigrationError, match="0004_create_model was edited"):
        migrations.migrate(fresh)

    assert fresh.execute("select to_regclass('note')").fetchone() == (None,)


def test_a_database_that_is_newer_than_the_program_is_refused(
    fresh: database.BoundedConnection, folder: Path
) -> None:
    migrations.migrate(fresh)
    newer = {"version": next_version(), "name": "add_future", "sha256": "0" * 64}
    fresh.execute(migrations.RECORD, newer)

    with pytest.raises(MigrationError, match="add_future was applied here but this program"):
        migrations.migrate(fresh)

    with pytest.raises(MigrationError, match="the database is newer than the program"):
        migrations.status(fresh)


def test_a_program_works_on_tables_that_are_newer_and_not_on_older_or_other_ones(
    fresh: database.BoundedConnection, folder: Path
) -> None:
    migrations.migrate(fresh)
    newer = {"version": next_version(), "name": "add_future", "sha256": "0" * 64}
    fresh.execute(migrations.RECORD, newer)
    migrations.require_applied(fresh)

    fresh.execute("delete from migration where version = %s", [next_version() - 1])
    with pytest.raises(SchemaMissing):
        migrations.require_applied(fresh)

    other = {"version": 0, "name": "create_other", "sha256": "0" * 64}
    fresh.execute(migrations.RECORD, other)
    with pytest.raises(MigrationError, match="0000_create_other was applied here but this"):
        migrations.require_applied(fresh)


def test_a_file_that_fails_leaves_nothing_behind_and_the_earlier_ones_stay(
    fresh: database.BoundedConnection, folder: Path
) -> None:
    good = add_file(folder, "create_note", "create table note (id integer)")
    bad = add_file(folder, "create_trouble", "create table trouble (id integer); select 1 / 0;")
    add_file(folder, "create_later", "create table later (id integer)")

    with pytest.raises(MigrationError, match=f"{bad:04d}_create_trouble was not applied: division"):
        migrations.migrate(fresh)

    left = "select to_regclass('note') is null, to_regclass('trouble'), to_regclass('later')"
    assert fresh.execute(left).fetchone() == (False, None, None)
    assert [row[0] for row in fresh.execute(APPLIED)] == list(range(1, good + 1))


def test_a_file_stays_only_together_with_its_line_in_the_ledger(
    fresh: database.BoundedConnection, folder: Path
) -> None:
    version = next_version()
    taken = f"insert into migration (version, name, sha256) values ({version}, 'x', 'x')"
    add_file(folder, "create_note", f"create table note (id integer); {taken};")

    with pytest.raises(MigrationError, match="create_note was not applied: duplicate key"):
        migrations.migrate(fresh)

    assert fresh.execute("select to_regclass('note')").fetchone() == (None,)
    assert [row[0] for row in fresh.execute(APPLIED)] == list(range(1, version))


def test_a_file_that_was_mended_is_applied_the_next_time(
    fresh: database.BoundedConnection, folder: Path
) -> None:
    version = add_file(folder, "create_trouble", "select 1 / 0")
    with pytest.raises(MigrationError):
        migrations.migrate(fresh)
    (folder / f"{version:04d}_create_trouble.sql").write_text("create table note (id integer)")

    applied = migrations.migrate(fresh)

    assert [migration.version for migration in applied] == [version]


def test_another_migrator_can_work_after_one_that_failed(
    fresh: database.BoundedConnection, url: str, folder: Path
) -> None:
    version = add_file(folder, "create_trouble", "select 1 / 0")
    with pytest.raises(MigrationError):
        migrations.migrate(fresh)
    (folder / f"{version:04d}_create_trouble.sql").unlink()

    applied = migrate(url)

    assert applied == []


def test_a_failure_names_no_row(fresh: database.BoundedConnection, folder: Path) -> None:
    add_file(folder, "add_row", "insert into model (name) values ('sentiment')")

    with pytest.raises(MigrationError) as failure:
        migrations.migrate(fresh)

    assert str(failure.value).endswith('violates unique constraint "model_pkey"')


def test_an_encoding_without_the_letters_says_which_one_to_take(
    fresh: database.BoundedConnection, folder: Path
) -> None:
    untranslatable = "do $$begin raise 'no' using errcode = 'untranslatable_character'; end$$;"
    add_file(folder, "add_letters", untranslatable)

    with pytest.raises(MigrationError, match="was not applied: no: .*encoding 'UTF8'"):
        migrations.migrate(fresh)


def test_a_server_that_is_too_old_is_refused(
    fresh: database.BoundedConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "SERVER_VERSION", "select 140012")

    with pytest.raises(MigrationError, match="PostgreSQL 15 or newer is needed; this is 14"):
        migrations.migrate(fresh)

    assert fresh.execute("select to_regclass('migration')").fetchone() == (None,)


# Waiting.


def test_a_locked_table_makes_it_give_up_rather_than_wait_for_ever(
    fresh: database.BoundedConnection, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "100ms")
    migrations.migrate(fresh)
    version = add_file(folder, "add_note", "alter table job add column note text")

    with ThreadPoolExecutor(1) as pool, psycopg.connect(url) as reader:
        reader.execute("select count(*) from job")
        waiting = pool.submit(migrations.migrate, fresh)
        with pytest.raises(MigrationError, match=r"add_note was not applied: .* lock timeout"):
            waiting.result(5)

    assert [row[0] for row in fresh.execute(APPLIED)] == list(range(1, version))
    assert [migration.version for migration in migrations.migrate(fresh)] == [version]


def test_it_waits_for_another_migrator(
    fresh: database.BoundedConnection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a migration may wait for a table.
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "1ms")

    with psycopg.connect(url, autocommit=True) as other, ThreadPoolExecutor(1) as pool:
        other.execute("select pg_advisory_lock(%s)", [migrations.LOCK_KEY])
        waiting = pool.submit(migrations.migrate, fresh)
        pid = fresh.info.backend_pid
        wait_for(lambda: is_waiting(other, pid), "the migrator waits")
        ledger = other.execute("select to_regclass('migration')").fetchone()
        other.execute("select pg_advisory_unlock(%s)", [migrations.LOCK_KEY])
        applied = waiting.result(15)

    assert ledger == (None,)
    assert applied == migrations.available()


def test_it_gives_up_when_another_migrator_never_ends(
    fresh: database.BoundedConnection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAIT_SECONDS", 1.0)

    with psycopg.connect(url, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s)", [migrations.LOCK_KEY])
        with pytest.raises(MigrationError, match="another migration has been running"):
            migrations.migrate(fresh)

    assert fresh.execute("select to_regclass('migration')").fetchone() == (None,)


def test_several_may_start_at_once_and_each_file_is_applied_by_one(url: str) -> None:
    applied = at_once(*[lambda: migrate(url)] * 4)

    assert sorted(version for versions in applied for version in versions) == every_version()


def test_a_migrator_that_dies_lets_the_next_one_work(url: str, folder: Path) -> None:
    version = add_file(folder, "create_pause", "create table pause (); select pg_sleep(600);")

    with (
        psycopg.connect(url, autocommit=True) as other,
        database.connect(url) as dying,
        ThreadPoolExecutor(1) as pool,
    ):
        asleep = pool.submit(migrations.migrate, dying)
        sleeping = "select from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
        pid = dying.info.backend_pid
        wait_for(lambda: other.execute(sleeping, [pid]).rowcount, "the migrator is at work")
        other.execute("select pg_terminate_backend(%s, 5000)", [pid])
        with pytest.raises(MigrationError, match="create_pause was not applied"):
            asleep.result(15)
    (folder / f"{version:04d}_create_pause.sql").write_text("create table pause ()")

    assert migrate(url) == [version]


# Every major version.


@dataclass(frozen=True)
class Cluster:
    """A server and two databases of it."""

    url: str  # of its first database, where nothing happens
    one: str
    two: str


@pytest.fixture(scope="module", params=[15, 16, 17, 18])
def used_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A server of each major version that is found here."""
    try:
        binaries = find_binaries(request.param)
    except EmbeddedError:
        pytest.skip(f"PostgreSQL {request.param} is not on this machine")
    home = tmp_path_factory.mktemp(f"postgres_{request.param}")
    server = embedded.Server(home, binaries=binaries, options={"fsync": "off"})
    server.start()
    admin_url = database_url(server.url, "postgres")
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute("create database another")
    yield Cluster(admin_url, server.url, database_url(server.url, "another"))
    server.stop()


@pytest.fixture
def cluster(used_cluster: Cluster) -> Cluster:
    """A server as it is at first: its databases are empty, and it has no roles."""
    roles = "select rolname from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres'"
    for url in (used_cluster.one, used_cluster.two):
        sweep(url)
        give(url, "postgres")
    with psycopg.connect(used_cluster.url, autocommit=True) as admin:
        for (role,) in admin.execute(roles).fetchall():
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))
    return used_cluster


def give(url: str, owner: str) -> None:
    """Change the owner of a database."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("alter database {} owner to {}").format(
                sql.Identifier(admin.info.dbname), sql.Identifier(owner)
            )
        )


def test_every_major_version_is_migrated_to_the_same_tables(cluster: Cluster, db: Db) -> None:
    columns = """
        select table_name, column_name, data_type, is_nullable
        from information_schema.columns
        where table_schema = 'public'
        order by table_name, ordinal_position
    """

    with database.connect(cluster.one) as connection:
        migrations.migrate(connection)
        made = connection.execute(columns).fetchall()

    assert made == db.execute(columns).fetchall()


def test_a_job_has_its_whole_life_on_every_major_version(cluster: Cluster) -> None:
    migrate(cluster.one)
    with (
        psycopg.connect(cluster.one, autocommit=True) as owner,
        database.connect(cluster.one, role="job_web") as web,
        database.connect(cluster.one, role="job_runner") as runner,
        database.connect(cluster.one, role="job_janitor") as janitor,
    ):
        jobs = Jobs(owner)
        jobs.add_runner("here-1-abcd")
        inserted = [
            web.execute("insert into job (input) values ('{}') returning id::text").fetchone()
            for _ in range(4)
        ]
        made = [row[0] for row in inserted if row]

        claimed = queue.claim(runner, runner="here-1-abcd", model="sentiment", slots=4)
        good, bad, held, lost = sorted(claimed, key=lambda job: job.id)
        queue.complete(runner, [Outcome(good, 0.1, result=json.dumps(POSITIVE))])
        queue.fail(runner, [Outcome(bad, 0.1, failure=Failure("x", "x", retryable=False))])
        released = queue.release(runner, [held])
        heartbeat.sign_off(runner, "here-1-abcd")
        rescued = queue.rescue(runner)
        deleted = janitor.execute("delete from job where finished_at is not null").rowcount

        assert [good.id, bad.id, held.id, lost.id] == made
        assert released == {held.id: "pending"}
        assert [(job.id, job.status) for job in rescued] == [(lost.id, "pending")]
        assert deleted == 2
        assert (jobs.get(held.id)["attempt"], jobs.get(lost.id)["attempt"]) == (0, 1)
        assert web.execute("select pending from queue_health").fetchone() == (2,)


def test_ids_are_in_order_on_every_major_version(cluster: Cluster) -> None:
    migrate(cluster.one)
    with database.connect(cluster.one, role="job_web") as web:
        rows = web.execute("""
            select
                (extract(epoch from clock_timestamp()) * 1000)::bigint as before,
                uuidv7() as id,
                (extract(epoch from clock_timestamp()) * 1000)::bigint as after
            from generate_series(1, 5000)
        """).fetchall()

    made: list[UUID] = [row[1] for row in rows]
    # The first 64 bits are the time and its fraction; the rest may be random.
    times = [job_id.int >> 64 for job_id in made]
    assert times == sorted(times)
    assert len(set(made)) == 5000
    assert len(set(times)) > 100
    assert {(job_id.version, job_id.variant) for job_id in made} == {(7, RFC_4122)}
    clocks = [(before, job_id.int >> 80, after) for before, job_id, after in rows]
    assert all(before - 1000 <= clock <= after + 1000 for before, clock, after in clocks)


def test_two_databases_of_a_cluster_may_be_migrated_at_once(cluster: Cluster) -> None:
    # The roles are the cluster's, and no lock of one database holds in the other.
    for _ in range(3):
        applied = at_once(lambda: migrate(cluster.one), lambda: migrate(cluster.two))

        assert applied == [every_version(), every_version()]
        sweep(cluster.one)
        sweep(cluster.two)
        with psycopg.connect(cluster.url, autocommit=True) as admin:
            admin.execute(f"drop role {', '.join(ROLES)}")


def test_a_role_that_another_database_is_making_is_waited_for(cluster: Cluster) -> None:
    with (
        psycopg.connect(cluster.two) as other,
        psycopg.connect(cluster.url, autocommit=True) as watch,
        database.connect(cluster.one) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("create role job_runner nologin")
        waiting = pool.submit(migrations.migrate, connection)
        pid = connection.info.backend_pid
        wait_for(lambda: is_waiting(watch, pid), "the migrator waits")
        other.commit()

        applied = waiting.result(15)

        roles = {row[0] for row in watch.execute("select rolname from pg_roles")}

    assert applied == migrations.available()
    assert roles.issuperset(ROLES)


# An owner who is no superuser.


def add_owner(cluster: Cluster, rights: str) -> tuple[str, str]:
    """Give both databases to a new login; return their addresses as it sees them."""
    with psycopg.connect(cluster.url, autocommit=True) as admin:
        admin.execute(f"create role plain_owner login {rights} password 'plain_owner'")
    give(cluster.one, "plain_owner")
    give(cluster.two, "plain_owner")
    return login_url(cluster.one, "plain_owner"), login_url(cluster.two, "plain_owner")


def roles_that_it_can_take(url: str) -> list[str]:
    """Act as each role on the table ``job``."""
    taken = []
    for role in ROLES:
        with database.connect(url, role=role) as connection:
            rows = connection.execute("select current_user, count(*) from job").fetchall()
            taken += [row[0] for row in rows]
    return taken


def test_an_owner_who_may_create_roles_migrates_and_acts_as_them(cluster: Cluster) -> None:
    one, two = add_owner(cluster, "createrole")

    applied = at_once(lambda: migrate(one), lambda: migrate(two))

    assert applied == [every_version(), every_version()]
    assert roles_that_it_can_take(one) == ROLES
    assert roles_that_it_can_take(two) == ROLES


@pytest.mark.parametrize("rights", ["createrole", "nocreaterole"])
def test_an_owner_migrates_where_somebody_else_made_the_roles(
    cluster: Cluster, rights: str
) -> None:
    one, _ = add_owner(cluster, rights)
    with psycopg.connect(cluster.url, autocommit=True) as admin:
        for role in ROLES:
            admin.execute(f"create role {role} nologin")
        admin.execute(f"grant {', '.join(ROLES)} to plain_owner")

    applied = migrate(one)

    assert applied == every_version()
    assert roles_that_it_can_take(one) == ROLES


def test_an_owner_migrates_even_if_it_may_not_act_as_the_roles(cluster: Cluster) -> None:
    one, _ = add_owner(cluster, "nocreaterole")
    with psycopg.connect(cluster.url, autocommit=True) as admin:
        for role in ROLES:
            admin.execute(f"create role {role} nologin")

    applied = migrate(one)

    assert applied == every_version()
    with pytest.raises(DatabaseError, match="the login may not act as job_web"):
        database.connect(one, role="job_web")


def test_a_grant_that_another_database_is_making_is_waited_for(cluster: Cluster) -> None:
    one, two = add_owner(cluster, "createrole")
    with (
        psycopg.connect(two) as other,
        psycopg.connect(cluster.url, autocommit=True) as watch,
        database.connect(one) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("create role job_web nologin")
        other.commit()
        other.execute("grant job_web to current_user")
        waiting = pool.submit(migrations.migrate, connection)
        pid = connection.info.backend_pid
        wait_for(lambda: is_waiting(watch, pid), "the migrator waits")
        other.commit()

        applied = waiting.result(15)

    assert applied == migrations.available()
    assert roles_that_it_can_take(one) == ROLES
