"""The protocol with one step broken, each with a plan in which that must show.

A mutant patches the runner in its own process before the command starts; production code
knows nothing of it. Some steps are guarded by the database as well: then the plan weakens
that guard in its own database, since it is the step that is to be missed, not the guard.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from types import ModuleType
from typing import Any

from psycopg.sql import Composed

from chaos.plan import Fault, Load, Plan
from jobrunner import claimer, heartbeat, judge, links, queue, sweeper
from jobrunner.claimer import Claimer
from jobrunner.judge import Judge
from jobrunner.outcome import Job
from jobrunner.queue import Connection
from jobrunner.runner import Runner
from jobrunner.statement import Statement

UNGUARDED = ("drop trigger job_makes_legal_moves_only on job",)
LATE_COMMITS = (
    "alter role chaos_web set synchronous_commit = off",
    "alter system set wal_writer_delay = '10s'",
    "select pg_reload_conf()",
)
NEVER = 1e6


@dataclass(frozen=True)
class Mutant:
    """What is broken, and the plan that is to show it."""

    name: str
    what: str
    plan: Plan
    patch: Callable[[], None]


MUTANTS: dict[str, Mutant] = {}


def mutant(plan: Plan) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a patch under its name; its docstring says what it breaks."""

    def register(patch: Callable[[], None]) -> Callable[[], None]:
        what = (patch.__doc__ or "").strip().rstrip(".")
        MUTANTS[patch.__name__] = Mutant(patch.__name__, what, plan, patch)
        return patch

    return register


def _plan(name: str, seconds: float, load: Load, *faults: Fault, **more: Any) -> Plan:
    settings = {"lease_seconds": 2, "drain_seconds": 12, "recovery_seconds": 1} | more
    return Plan(1, seconds, faults, load, name, **settings)


def _each(kind: str, *times: float, seconds: float = 0.0) -> tuple[Fault, ...]:
    """The same fault for all three runners at these times."""
    return tuple(Fault(at, kind, seconds, target) for at in times for target in range(3))


def _work(least: float, most: float, rate: float, **more: Any) -> Load:
    return Load(
        http_rate=rate, sql_rate=0, deeds=("work",), work_seconds=(least, most), slow_one_in=0,
        **{"cancel_rate": 0, **more},
    )  # fmt: skip


# A job takes as long as a pause, and the rescued one is at work when the runner goes on.
PAUSES = (Fault(2, "runner_pause", 5, 0), Fault(8, "runner_pause", 5, 1))
KILLS = tuple(Fault(at, "runner_kill", 1, place % 3) for place, at in enumerate((2, 5, 8, 11, 14)))


@mutant(_plan("finish_without_token", 15, _work(3, 4, 1.2), *PAUSES))
def finish_without_token() -> None:
    """An outcome is recorded by the job's id alone, before a heartbeat can tell of the loss."""
    guard = "and lease_token = (%(lease_tokens)s::uuid[])[width_bucket(id, %(ids)s::uuid[])]"
    _change(queue, "COMPLETE", guard, "")
    _change(queue, "FAIL", guard, "")
    cancel = Runner._cancel

    def write_first(self: Runner, connection: Connection) -> None:
        self._write(connection)
        cancel(self, connection)

    _put(Runner, "_cancel", write_first)


@mutant(_plan("revive", 15, _work(3, 4, 1.2), *PAUSES))
def revive() -> None:
    """A heartbeat revives a runner that was found dead, under its old id."""
    _change(heartbeat, "BEAT", "            and lost_at is null\n", "")
    beat = "heartbeat_at = clock_timestamp(),"
    _change(heartbeat, "BEAT", beat, f"lost_at = null, {beat}")


LONG_PAUSES = tuple(Fault(5, "runner_pause", 4.5, target) for target in (0, 1))


@mutant(_plan("stale_work", 11, _work(15, 17, 1, even=True), *LONG_PAUSES, drain_seconds=60))
def stale_work() -> None:
    """A runner that was found dead lets its workers go on with what it has lost."""
    start_anew = Runner._start_anew

    def without_kill(self: Runner, connection: Connection) -> None:
        kill_jobs = self._crew.kill_jobs
        _put(self._crew, "kill_jobs", lambda *_: ([], []))
        start_anew(self, connection)
        _put(self._crew, "kill_jobs", kill_jobs)

    _put(Runner, "_start_anew", without_kill)


@mutant(_plan("rescue_by_look", 18, _work(0.5, 1.5, 3), *KILLS, weaken=UNGUARDED))
def rescue_by_look() -> None:
    """A rescue looks first, then updates by the job's id alone."""
    look = queue.RESCUE.partition("order by job.id")[0].partition("(")[2]
    update = """
        update job
        set
            status = case when attempt < max_attempts then 'pending' else 'failed' end,
            claimed_by = null,
            lease_token = null,
            started_at = case when attempt < max_attempts then null else started_at end,
            finished_at = case when attempt < max_attempts then null else clock_timestamp() end,
            result = null,
            error = case when attempt < max_attempts then null else %(error)s::jsonb end,
            errors = errors || (%(error)s::jsonb || jsonb_build_object('attempt', attempt))
        where id = any(%(ids)s)
    """
    error = '{"code": "runner_lost", "message": "lost", "retryable": true}'

    def rescue(connection: Connection) -> list[queue.Rescued]:
        ids = [row[0] for row in connection.execute(look)]
        sleep(0.3)
        connection.execute(update, {"ids": ids, "error": error})
        return [queue.Rescued(job, "sentiment", "pending", 1) for job in ids]

    _put(queue, "rescue", rescue)
    _put(sweeper, "RESCUE_SECONDS", 0.3)


@mutant(_plan("no_rescue", 8, _work(0.5, 1.5, 3), *KILLS[:2]))
def no_rescue() -> None:
    """Nobody frees what a dead runner held."""
    _put(queue, "rescue", lambda *_: [])


@mutant(_plan("claim_by_look", 6, _work(0.1, 0.3, 12), weaken=UNGUARDED))
def claim_by_look() -> None:
    """A claim looks for pending jobs, then takes them by their ids alone."""
    look = queue.CLAIM.partition("for update")[0].partition("(")[2]
    update = """
        update job
        set
            status = 'processing',
            attempt = least(attempt + 1, max_attempts),
            claimed_by = %(runner)s,
            lease_token = gen_random_uuid(),
            started_at = clock_timestamp()
        where id = any(%(ids)s) and finished_at is null
        returning id::text, lease_token::text, model, input::text, attempt
    """

    def execute(claim: queue.Claim, connection: Connection) -> list[Job]:
        place = queue.FRONT
        begin = {"from_priority": place.priority, "from_run_at": place.run_at, "from_id": place.id}
        looked = connection.execute(look, vars(claim) | begin)
        ids = [row[0] for row in looked]
        sleep(0.02)
        taken = connection.execute(update, {"runner": claim.runner, "ids": ids})
        return [Job(*row) for row in taken]

    _put(queue.Claim, "execute", execute)


FLAKY = Load(http_rate=6, sql_rate=0, cancel_rate=0, deeds=("work", "flaky", "poison"))


@mutant(_plan("attempt_on_failure", 6, FLAKY, weaken=UNGUARDED))
def attempt_on_failure() -> None:
    """An attempt is counted when it has failed, not when it starts."""
    _change(queue, "CLAIM", "attempt = attempt + 1", "attempt = attempt")
    _change(queue, "RELEASE", "attempt = job.attempt - 1", "attempt = job.attempt")
    counted = "set\n        attempt = least(job.attempt + 1, job.max_attempts),\n"
    _change(queue, "FAIL", "set\n", counted)
    _change(queue, "RESCUE", "set\n", counted)


@mutant(_plan("failure_uncounted", 6, FLAKY))
def failure_uncounted() -> None:
    """A failed attempt is taken back like a start that was handed back."""
    uncounted = "set\n        attempt = job.attempt - case when held.again then 1 else 0 end,\n"
    _change(queue, "FAIL", "set\n", uncounted)


# An insert of which nobody is told, as with triggers off in a bulk load.
TELLS_NOBODY = ("alter table job disable trigger job_wakes_sleeping_runners",)


@mutant(_plan("no_poll", 12, _work(0, 0.1, 1), weaken=TELLS_NOBODY, lease_seconds=60))
def no_poll() -> None:
    """A runner that sleeps trusts in notifications alone."""
    plan_next_look = Claimer._plan_next_look

    def without_poll(self: Claimer, connection: Connection) -> None:
        plan_next_look(self, connection)
        if self.look_at > monotonic() + claimer.SECOND_LOOK_SECONDS:
            self.look_at = monotonic() + NEVER

    _put(Claimer, "_plan_next_look", without_poll)


# With so rare a poll, only a look after each LISTEN finds what came while nobody listened.
# A job comes every 5 s, and all runners' connections are cut a second before.
CUTS = _each("cut_link", 4, 9, 14)


@mutant(
    _plan("listen_after_look", 17, _work(0, 0.1, 0.2, even=True), *CUTS,
          poll_seconds=60, lease_seconds=30)
)  # fmt: skip
def listen_after_look() -> None:
    """A runner looks for jobs and listens then; nor does it look when it beats."""
    connect, claim = links.connect, Claimer.claim
    deaf: dict[int, Composed] = {}

    def connect_only(url: str, **how: Any) -> Connection:
        session = how.get("session")
        if session is None or "listen" not in session.as_string():
            return connect(url, **how)
        connection = connect(url, **how | {"session": links.PLANNING})
        deaf[id(connection)] = session
        return connection

    def claim_then_listen(self: Claimer, connection: Connection) -> None:
        if id(connection) not in deaf:
            claim(self, connection)
            return
        self.look_at = 0.0
        claim(self, connection)
        sleep(1.5)
        connection.execute(deaf.pop(id(connection)))

    _put(links, "connect", connect_only)
    _put(Runner, "_check_listener", lambda self, link: self._listener.keep_lock(link))
    _put(Claimer, "claim", claim_then_listen)


@mutant(_plan("cancel_overwrites", 8, _work(0.1, 0.5, 6, cancel_rate=6), weaken=UNGUARDED))
def cancel_overwrites() -> None:
    """A cancel does not mind that the job is final."""
    look = queue.cancelled
    update = """
        update job
        set
            status = 'failed',
            lease_token = null,
            finished_at = clock_timestamp(),
            result = null,
            error = cancelled_error()
        from cancel_request
        where
            job.id = cancel_request.job_id
            and (job.error ->> 'code') is distinct from 'cancelled'
    """

    def cancelled(connection: Connection, ids: list[str]) -> set[str]:
        found = look(connection, ids)
        connection.execute(update)
        return found

    _put(queue, "cancelled", cancelled)


@mutant(_plan("cancel_ignored", 8, _work(4, 6, 1, cancel_rate=2)))
def cancel_ignored() -> None:
    """A runner does not look for cancels."""
    _put(queue, "cancelled", lambda *_: set())


DEAF = _each("deaf_link", 1, 4.5, 8, 11.5, seconds=2)


@mutant(_plan("answer_forgotten", 15, _work(0, 0.1, 16), *DEAF, lease_seconds=6, poll_seconds=0.1))
def answer_forgotten() -> None:
    """Claims of which the answer was lost are not handed back."""
    _put(queue, "release_unknown", lambda *_, **__: [])


RESTARTS = tuple(Fault(at, "postgres_fast_restart", 1) for at in (2, 6))


@mutant(_plan("hasty_judge", 11, _work(0.5, 1, 2), *RESTARTS, lease_seconds=30))
def hasty_judge() -> None:
    """Who comes back from an outage first takes all others for dead."""
    _put(judge, "LOCK_SECONDS", 0.0)
    _put(Judge, "lose_contact", lambda _: None)


CRASHES = tuple(Fault(at, "postgres_immediate_restart", 0.2) for at in (2, 4, 6, 8, 10))


@mutant(
    _plan("early_202", 12, Load(http_rate=30, sql_rate=30, cancel_rate=0, deeds=("work",),
          work_seconds=(0.1, 0.2), slow_one_in=0), *CRASHES,
          weaken=LATE_COMMITS, drain_seconds=60, lease_seconds=30)
)  # fmt: skip
def early_202() -> None:
    """The web's commits are acknowledged before they are on disk (set in the database)."""


# A job is at work when the server crashes, and for so long after that others are back before.
FORGETTING = _work(2, 3, 2)
FORGETFUL = tuple(Fault(at, "crash_after_claim", 0.2) for at in range(2, 14, 2))


@mutant(_plan("claims_while_missing", 15, FORGETTING, *FORGETFUL, lease_seconds=30))
def claims_while_missing() -> None:
    """After a crash a runner claims before all have said what they hold."""
    _change(heartbeat, "LET_IN", "and not exists (select from missing_runner)", "")


@mutant(_plan("holds_unsaid", 15, FORGETTING, *FORGETFUL, lease_seconds=30))
def holds_unsaid() -> None:
    """A runner answers the roll call and does not say what it holds."""
    reclaim = queue.reclaim

    def say_nothing(connection: Connection, *, runner: str, jobs: Sequence[Job]) -> set[str]:
        return reclaim(connection, runner=runner, jobs=jobs[:0])

    _put(queue, "reclaim", say_nothing)


def _put(owner: object, name: str, new: object) -> None:
    """Put something in the place of what must be there."""
    if not hasattr(owner, name):
        raise SystemExit(f"the mutant does not fit any more: no {name}")
    setattr(owner, name, new)


def _change(module: ModuleType, name: str, old: str, new: str) -> None:
    """Change a statement: a mutant that changes nothing would prove nothing."""
    text = getattr(module, name)
    if old not in text:
        raise SystemExit(f"the mutant does not fit any more: no {old.strip()!r} in {name}")
    changed = text.replace(old, new)
    setattr(module, name, changed)
    if hasattr(module, executed := f"_{name.lower()}"):
        setattr(module, executed, Statement(name.lower(), changed))
