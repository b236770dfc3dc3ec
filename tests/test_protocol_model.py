"""The protocol against a model of it: two runners, a sweeper and a canceller, interleaved, and a
server that crashes.

Each move may be left in an open transaction while the others go on; who then has to wait for
a lock gives up (lock_timeout) and has changed nothing. After each step the rows must be what
the model says. Time moves by editing timestamps.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crashes import forget_claims
from helpers import POSITIVE, login_url
from jobrunner import heartbeat, judge, queue
from jobrunner.database import BoundedConnection, connect
from jobrunner.heartbeat import Pulse
from jobrunner.outcome import Failure, Job, Outcome

PULSE = Pulse(False, 0, 0)
FINAL = ("completed", "failed")

RARELY = st.sampled_from([False, False, False, True])
RUNNER = st.sampled_from("ab")

READ_ALL = """
    select
        id::text, status, attempt, claimed_by, lease_token::text, error ->> 'code',
        jsonb_array_length(errors)
    from job
"""


NOTED = "select unnest(job_ids)::text, lease_token::text from job_claim"

LET_TIME_PASS = "update job set run_at = now() where status = 'pending'"
LET_LEASE_END = "update runner set heartbeat_at = now() - interval '1 h' where id = %s"

EXPIRED = """
    select id, heartbeat_at
    from runner
    where lost_at is null and heartbeat_at + lease < now()
"""


@dataclass
class Expected:
    """A job as it must be."""

    max_attempts: int
    status: str = "pending"
    attempt: int = 0
    claimed_by: str | None = None
    lease_token: str | None = None
    code: str | None = None
    failures: int = 0
    cancel_requested: bool = False

    def end(self, status: str, code: str | None = None) -> None:
        self.status, self.code, self.lease_token = status, code, None

    def send_back(self, attempt: int, code: str, *, final: bool) -> None:
        """To pending, unless that must not be."""
        if self.cancel_requested and (code == "runner_lost" or not final):
            self.end("failed", "cancelled")
        elif final:
            self.end("failed", code)
        else:
            self.status, self.claimed_by, self.lease_token = "pending", None, None
            self.attempt = attempt

    def fail(self, code: str, retryable: bool) -> None:
        self.failures += 1
        self.send_back(self.attempt, code, final=not retryable or self.attempt >= self.max_attempts)

    def row(self) -> tuple[Any, ...]:
        return (
            self.status, self.attempt, self.claimed_by, self.lease_token, self.code, self.failures
        )  # fmt: skip


@dataclass
class Actor:
    """A runner: its connection, its present id, what it believes to hold."""

    connection: BoundedConnection
    id: str = ""
    held: list[Job] = field(default_factory=list)
    # Of what it has claimed, for as long as the database notes it.
    lease_tokens: set[str] = field(default_factory=set)
    lives: int = 0
    # What the model is to do when the open transaction commits, if there is one.
    commits: list[Callable[[], None]] | None = None

    def register(self, name: str) -> None:
        self.lives += 1
        self.id = f"{name}-{self.lives}"
        self.held.clear()
        heartbeat.register(self.connection, self.id, models={"sentiment": 1}, lease_seconds=30)


class Protocol(RuleBasedStateMachine):
    """Rules are the steps of the protocol; the invariant compares the table with the model."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Expected] = {}
        self.lost: set[str] = set()
        # Job and lease token of the claims that a crash has made the server forget, and who has
        # answered it since.
        self.forgotten: set[tuple[str, str | None]] = set()
        self.answered: set[str] = set()
        self.owner = psycopg.connect(self.url, autocommit=True)
        self.owner.execute(
            "truncate job, job_claim, job_progress, cancel_request, runner, runner_model, roll_call"
        )
        runner_url, web_url = login_url(self.url, "runner_login"), login_url(self.url, "web_login")
        self.runners = {name: Actor(connect(runner_url)) for name in ("a", "b")}
        self.sweeper, self.web = connect(runner_url), connect(web_url)
        actors = [actor.connection for actor in self.runners.values()]
        for connection in (*actors, self.sweeper, self.web, self.owner):
            connection.execute("set lock_timeout = '20ms'")
        for name in self.runners:
            self.register(name)
        for max_attempts in (1, 2, 3):
            self.submit(max_attempts, 0)

    def teardown(self) -> None:
        for actor in self.runners.values():
            actor.connection.close()
        for connection in (self.owner, self.sweeper, self.web):
            connection.close()

    # Steps

    @rule(max_attempts=st.integers(1, 3), priority=st.integers(-1, 1))
    def add(self, max_attempts: int, priority: int) -> None:
        self.submit(max_attempts, priority)

    def submit(self, max_attempts: int, priority: int) -> None:
        row = self.web.execute(
            "insert into job (model, input, max_attempts, priority)"
            " values ('sentiment', '{}', %s, %s) returning id::text",
            [max_attempts, priority],
        ).fetchone()
        assert row
        self.jobs[row[0]] = Expected(max_attempts)

    @rule(name=RUNNER, slots=st.integers(1, 3), hold=RARELY)
    def claim(self, name: str, slots: int, hold: bool) -> None:
        """Claim, after the time has passed that failed attempts had to wait."""
        self.attempted(lambda: [self.owner.execute(LET_TIME_PASS)])
        if self.runners[name].commits is None:
            self.ask_to_claim(self.runners[name])
        actor = self.begun(name, hold)
        in_use = {expected.lease_token for expected in self.jobs.values()}
        spent = actor.lease_tokens - in_use
        for job in self.attempted(
            lambda: queue.claim(
                actor.connection, runner=actor.id, model="sentiment", slots=slots, spent=spent
            )
        ):
            assert actor.id not in self.lost
            assert not self.missing
            actor.held.append(job)
            self.applied(actor, self.claimed, job, actor)

    def claimed(self, job: Job, actor: Actor) -> None:
        actor.lease_tokens.add(job.lease_token)
        expected = self.jobs[job.id]
        assert expected.status == "pending"
        assert job.attempt == expected.attempt + 1
        expected.status, expected.attempt = "processing", job.attempt
        expected.claimed_by, expected.lease_token = actor.id, job.lease_token

    @rule(name=RUNNER, data=st.data(), hold=RARELY)
    def complete(self, name: str, data: st.DataObject, hold: bool) -> None:
        actor, job = self.begun(name, hold), self.pick(data)
        outcome = job and Outcome(job, 0.1, result=json.dumps(POSITIVE))
        moved = self.attempted(lambda: outcome and queue.complete(actor.connection, [outcome]))
        for job_id in moved:
            self.applied(actor, self.ended, job, job_id)

    def ended(self, job: Job, job_id: str) -> None:
        self.must_hold(job)
        self.jobs[job_id].end("completed")

    @rule(name=RUNNER, final=RARELY, data=st.data(), hold=RARELY)
    def fail(self, name: str, final: bool, data: st.DataObject, hold: bool) -> None:
        actor, job = self.begun(name, hold), self.pick(data)
        failure = Failure("model_error", "it broke", not final)
        outcome = job and Outcome(job, 0.1, failure=failure)
        for _ in self.attempted(lambda: outcome and queue.fail(actor.connection, [outcome])):
            self.applied(actor, self.failed, job, not final)

    def failed(self, job: Job, retryable: bool) -> None:
        self.must_hold(job)
        self.jobs[job.id].fail("model_error", retryable)

    @rule(name=RUNNER, data=st.data(), hold=RARELY)
    def release(self, name: str, data: st.DataObject, hold: bool) -> None:
        actor, job = self.begun(name, hold), self.pick(data)
        for _ in self.attempted(lambda: job and queue.release(actor.connection, [job])):
            self.applied(actor, self.released, job)

    def released(self, job: Job) -> None:
        self.must_hold(job)
        self.jobs[job.id].send_back(job.attempt - 1, "", final=False)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(list(self.jobs)))
        done = self.attempted(
            lambda: [
                self.web.execute(
                    "insert into cancel_request (job_id) values (%s) on conflict do nothing",
                    [job_id],
                )
            ]
        )
        if done and self.jobs[job_id].status not in FINAL:
            self.jobs[job_id].cancel_requested = True
            if self.jobs[job_id].status == "pending":
                self.jobs[job_id].end("failed", "cancelled")

    @rule()
    def sweep(self) -> None:
        """Declare lost whose lease is over, then rescue, as a third runner does."""
        for runner, heartbeat_at in self.sweeper.execute(EXPIRED).fetchall():
            other = judge.Other(runner, heartbeat_at, False, True, 30)
            if self.attempted(lambda other=other: [judge.declare_lost(self.sweeper, other)]):
                self.lost.add(runner)
        for rescued in self.attempted(lambda: queue.rescue(self.sweeper)):
            expected = self.jobs[rescued.id]
            assert expected.status == "processing"
            assert expected.claimed_by in self.lost
            expected.fail("runner_lost", retryable=True)
        if self.all_idle():
            held = [job.claimed_by for job in self.jobs.values() if job.status == "processing"]
            assert not self.lost.intersection(held)

    @rule()
    def delete_spent(self) -> None:
        """What is noted of claims of which nothing is left."""
        self.attempted(lambda: [queue.delete_spent(self.sweeper)])

    @rule(name=RUNNER)
    def miss_beats(self, name: str) -> None:
        """The runner was paused past its lease."""
        self.attempted(lambda: [self.owner.execute(LET_LEASE_END, [self.runners[name].id])])

    @rule(name=RUNNER)
    def beat(self, name: str) -> None:
        """Come back; who was found dead drops what it held and takes a new id."""
        actor = self.runners[name]
        if actor.commits is None:
            answer = heartbeat.beat(actor.connection, actor.id, PULSE)
            assert (answer is None) == (actor.id in self.lost)
            if answer is None:
                self.register(name)
            else:
                assert (answer.may_claim is None) == (actor.id not in self.answered)

    def all_idle(self) -> bool:
        return all(actor.commits is None for actor in self.runners.values())

    @precondition(all_idle)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The server crashes, and has forgotten claims after which nothing was waited for."""
        by_token: dict[str, set[str]] = {}
        for actor in self.runners.values():
            for job in actor.held:
                by_token.setdefault(job.lease_token, set()).add(job.id)
        fresh = sorted(token for token, ids in by_token.items() if self.is_fresh(token, ids))
        lost = set(data.draw(st.lists(st.sampled_from(fresh), unique=True)) if fresh else [])
        forget_claims(self.owner, lost)
        for job_id, expected in self.jobs.items():
            if expected.lease_token in lost:
                self.forgotten.add((job_id, expected.lease_token))
                expected.send_back(expected.attempt - 1, "", final=False)
        self.answered.clear()

    def is_fresh(self, token: str, ids: set[str]) -> bool:
        """Whether all that it took is in work, and neither cancelled nor a lost runner's."""
        jobs = [self.jobs[job_id] for job_id in ids]
        return all(
            job.lease_token == token
            and not job.cancel_requested
            and job.claimed_by not in self.lost
            for job in jobs
        )

    @rule(name=RUNNER, hold=RARELY)
    def answer(self, name: str, hold: bool) -> None:
        """Say what is in hand; what was forgotten, and is not cancelled, is taken up again."""
        actor = self.begun(name, hold)
        in_hand = [job for job in actor.held if self.believes_to_hold(job)]
        try:
            taken = queue.reclaim(actor.connection, runner=actor.id, jobs=in_hand)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.InFailedSqlTransaction):
            return
        for job in in_hand:
            if job.id in taken:
                self.applied(actor, self.taken_up, job, actor)
        if actor.id not in self.lost:
            self.applied(actor, self.answered.add, actor.id)
        if actor.commits is None and actor.id not in self.lost:
            forgotten = [job.id for job in in_hand if self.is_forgotten(job)]
            assert not any(self.jobs[job_id].status == "pending" for job_id in forgotten)

    def taken_up(self, job: Job, actor: Actor) -> None:
        assert self.is_forgotten(job)
        assert actor.id not in self.lost
        self.forgotten.discard((job.id, job.lease_token))
        self.claimed(job, actor)

    def is_forgotten(self, job: Job) -> bool:
        return (job.id, job.lease_token) in self.forgotten

    def believes_to_hold(self, job: Job) -> bool:
        held = self.jobs[job.id].lease_token == job.lease_token
        return held or self.is_forgotten(job)

    @property
    def missing(self) -> set[str]:
        return {actor.id for actor in self.runners.values()} - self.answered - self.lost

    def ask_to_claim(self, actor: Actor) -> None:
        let_in = heartbeat.let_in(actor.connection, actor.id)
        assert let_in == (not self.missing and actor.id not in self.lost)

    def register(self, name: str) -> None:
        self.runners[name].register(name)
        self.answered.add(self.runners[name].id)

    @precondition(lambda self: any(actor.commits is not None for actor in self.runners.values()))
    @rule(rollback=RARELY)
    def end_transaction(self, rollback: bool) -> None:
        for actor in self.runners.values():
            commits, actor.commits = actor.commits or [], None
            status = actor.connection.info.transaction_status
            failed = status == psycopg.pq.TransactionStatus.INERROR
            actor.connection.execute("rollback" if rollback else "commit")
            if not rollback and not failed:
                for commit in commits:
                    commit()

    # Help

    def begun(self, name: str, hold: bool) -> Actor:
        """A runner, in a transaction that stays open for a while if it is to be held."""
        actor = self.runners[name]
        if hold and actor.commits is None:
            actor.connection.execute("begin")
            actor.commits = []
        return actor

    def pick(self, data: st.DataObject) -> Any:
        """One of the jobs that somebody holds, or has held and may still believe to."""
        held = [*self.runners["a"].held, *self.runners["b"].held]
        return data.draw(st.sampled_from(held)) if held else None

    def attempted(self, move: Callable[[], Any]) -> list[Any]:
        """Do it; nothing comes of it where it would have to wait, or its transaction is broken."""
        try:
            return list(move() or [])
        except (psycopg.errors.LockNotAvailable, psycopg.errors.InFailedSqlTransaction):
            return []

    def applied(self, actor: Actor, change: Callable[..., None], *arguments: Any) -> None:
        """Let the model know: now, or when the transaction commits."""
        if actor.commits is None:
            change(*arguments)
        else:
            actor.commits.append(lambda: change(*arguments))

    def must_hold(self, job: Job) -> None:
        """Only the current claim may record an outcome."""
        expected = self.jobs[job.id]
        assert (expected.status, expected.lease_token) == ("processing", job.lease_token)

    @invariant()
    def the_table_is_what_the_model_says(self) -> None:
        rows = {row[0]: tuple(row[1:]) for row in self.owner.execute(READ_ALL)}
        assert rows == {job_id: expected.row() for job_id, expected in self.jobs.items()}

    @invariant()
    def each_job_in_work_is_noted_with_its_claim(self) -> None:
        noted = {(job_id, lease_token) for job_id, lease_token in self.owner.execute(NOTED)}
        in_work = {
            (job_id, expected.lease_token)
            for job_id, expected in self.jobs.items()
            if expected.status == "processing"
        }
        assert in_work <= noted


def test_every_interleaving_of_the_protocol_keeps_the_promise(owner_url: str) -> None:
    Protocol.url = owner_url
    run_state_machine_as_test(
        Protocol,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
