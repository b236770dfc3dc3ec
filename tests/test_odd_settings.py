"""Whatever a database, an environment or a pooler has set, texts and times come through."""

from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import errors
from psycopg.pq import ExecStatus

from helpers import Jobs, login_url, wait_for
from jobrunner import embedded, statement
from jobrunner.cli import main
from jobrunner.database import connect
from jobrunner.statement import Statement
from processes import System
from web.database import Database

ODD = {
    "client_encoding": "latin1",
    "datestyle": "german",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "default_transaction_isolation": "serializable",
    # Every plan is worth compiling.
    "jit": "on",
    "jit_above_cost": "0",
}
TEXT = "großartig 😀 %(x)s 'it''s' \\"


@pytest.fixture
def odd(own_server: embedded.Server, admin: psycopg.Connection[Any]) -> embedded.Server:
    for name, value in ODD.items():
        admin.execute(f"alter database jobrunner set {name} = '{value}'")
    return own_server


@pytest.mark.process
def test_jobs_are_submitted_done_and_shown_under_odd_defaults(
    odd: embedded.Server, admin: psycopg.Connection[Any], services: System, tmp_path: Path
) -> None:
    services.runner(MOCK_DELAY_SECONDS=0, PGCLIENTENCODING="latin1")
    web = services.web(login_url(odd.url, "web_login"), PGCLIENTENCODING="latin1")

    status, accepted = web.submit(TEXT)
    assert status == 202
    path = f"/jobs/{accepted['job_id']}"
    assert web.get(f"{path}?wait=10")[1]["status"] == "completed"
    wait_for(lambda: web.get(path)[1]["status"] == "completed", "it is completed")

    # This connection was opened before.
    row = Jobs(admin).get(accepted["job_id"])
    assert row["input"] == {"text": TEXT}
    assert datetime.fromisoformat(web.get(path)[1]["created_at"]) == row["created_at"]
    assert web.get("/jobs")[0] == 200
    for command in ("status", "list", "doctor"):
        env = {"DATABASE_URL": odd.url, "JOBRUNNER_HOME": str(tmp_path)}
        done = CliRunner().invoke(main, [command], env=env)
        assert not isinstance(done.exception, Exception), command


def test_no_plan_of_ours_is_compiled(odd: embedded.Server) -> None:
    web = Database(login_url(odd.url, "web_login"))

    with web.connection() as connection:
        assert connection.execute("show jit").fetchone() == ("off",)
    with connect(odd.url) as connection:
        assert connection.execute("show jit").fetchone() == ("off",)
        query = "select proconfig from pg_proc where proname = 'count_queue'"
        [(config,)] = connection.execute(query).fetchall()
    web.close()

    # Of a view somebody else may ask, too.
    assert config[:2] == ["search_path=public, pg_temp", "jit=off"]


def test_two_results_in_an_answer_are_an_error_like_any_other(
    owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler may add an error of its own to that of the server."""
    real = statement.generators.execute

    def doubled(pgconn: Any) -> Any:
        results = yield from real(pgconn)
        return results * 2

    divide = Statement("divide", "select 1 / %(divisor)s")
    with psycopg.connect(owner_url, autocommit=True) as connection:
        assert divide.rows(connection, {"divisor": 1}) == [(1,)]
        monkeypatch.setattr(statement.generators, "execute", doubled)
        with pytest.raises(errors.DivisionByZero):
            divide.rows(connection, {"divisor": 0})
    assert ExecStatus.FATAL_ERROR not in statement.GOOD
