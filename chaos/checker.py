"""Reads histories and says what the promise forbids. Pure: no clock, no file, no database.

The rules, by the name under which a violation is reported:

    lost            a job that was acknowledged is not there
    unexpected      a job is there that nobody submitted, or twice
    key             an Idempotency-Key named two jobs
    unfinished      not every job was final within the deadline after all was mended
    final           a final state changed, or the row is not what its moves say
    move            a move that is not one of the five, or that does not follow the one before
    attempt         counted attempts are not contiguous or not within bounds
    token           a claim without a new token, or a token without a claim
    outcome         an outcome from another claim than the latest
    execution       a model at work without a claim, or twice for one
    cancel          a cancel that was acknowledged and did not take hold
    runner          a runner found dead without cause, robbed alive, or revived
    late            a wait that was longer than its bound
    leftover        something ran on after the end
    crash           something ended with a traceback
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from chaos.claims import (
    Claim,
    claims_of,
    crashes_of,
    is_forgotten_for_good,
    overlaps,
    process_of,
)
from chaos.histories import FINAL, Execution, History, Move, Operation
from chaos.intervals import Measure, spans_at_most, without

LEGAL = {
    (None, "pending"),
    ("pending", "processing"),
    ("pending", "failed"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("processing", "pending"),
}


@dataclass(frozen=True)
class Bounds:
    """How long may be waited, in seconds in which nothing else was wrong."""

    rescue: float = 5.0  # from the kill of a runner until its jobs are free
    cancel: float = 3.0  # from the acknowledgement until the job is final
    fence: float = 3.0  # a model goes on so long after its claim was lost
    start: float = 3.0  # from when a job is due until it is claimed, with many workers idle
    recovery: float = 6.0  # after a fault is over, before waits are measured again
    cause: float = 20.0  # a fault explains that a runner was found dead so long after its end


@dataclass(frozen=True)
class Violation:
    """Something that must not be: the rule, whom it befell, and what was seen."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


@dataclass
class Report:
    """What the checker found."""

    violations: list[Violation] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


def check(history: History, bounds: Bounds | None = None) -> Report:
    """Hold the histories against every rule."""
    return Checker(history, bounds or Bounds()).report()


class Checker:
    """The histories, sorted by job, and the rules."""

    def __init__(self, history: History, bounds: Bounds) -> None:
        self.history = history
        self.bounds = bounds
        self.figures: dict[str, float] = {}
        self.moves: dict[str, list[Move]] = defaultdict(list)
        for move in history.moves:
            self.moves[move.job].append(move)
        crashes = crashes_of(history)
        self.claims = {job: list(claims_of(moves, crashes)) for job, moves in self.moves.items()}
        self.job_of_text = {row.text: row.job for row in history.rows}
        self.executions = {one.id: one for one in history.executions}

    def report(self) -> Report:
        """Apply every rule."""
        rules = (
            self.lost, self.unexpected, self.keys, self.unfinished, self.final, self.legal,
            self.attempts, self.tokens, self.outcomes, self.ran, self.cancels, self.runners,
            self.late_rescues, self.late_starts, self.leftovers, self.crashes,
        )  # fmt: skip
        violations = [violation for rule in rules for violation in rule()]
        self._count()
        return Report(violations, self.figures)

    # What the clients were told

    def lost(self) -> Iterator[Violation]:
        """Each acknowledged job is there, under the id that was told."""
        rows = {row.job: row for row in self.history.rows}
        for done in self._operations("submit", "ok"):
            row = rows.get(done.job or "")
            if row is None or row.text != done.text:
                yield Violation("lost", str(done.job), f"acknowledged via {done.via}: {done.text}")

    def unexpected(self) -> Iterator[Violation]:
        """Each job was submitted, and once; what was refused is not there."""
        maybe = {done.text for done in self._operations("submit") if done.result != "failed"}
        for text, count in Counter(row.text for row in self.history.rows).items():
            if text not in maybe:
                yield Violation("unexpected", text, "nobody submitted it, or it was refused")
            if count > 1:
                yield Violation("unexpected", text, f"{count} jobs of one submission")

    def keys(self) -> Iterator[Violation]:
        """One key names one job."""
        jobs: dict[str, set[str]] = defaultdict(set)
        for done in self._operations("submit", "ok"):
            if done.key and done.job:
                jobs[done.key].add(done.job)
        for row in self.history.rows:
            if row.key:
                jobs[row.key].add(row.job)
        for key, named in jobs.items():
            if len(named) > 1:
                yield Violation("key", key, f"names {len(named)} jobs")

    # What the database did

    def unfinished(self) -> Iterator[Violation]:
        """All is final in time."""
        for row in self.history.rows:
            if row.status not in FINAL:
                yield Violation("unfinished", row.job, f"is {row.status}: {row.text}")
        if self.history.drained is None:
            yield Violation("unfinished", "the queue", "was not empty within the deadline")

    def final(self) -> Iterator[Violation]:
        """A final state is reached once and stays; the row is what the last move made of it."""
        rows = {row.job: row for row in self.history.rows}
        for job, moves in self.moves.items():
            for move in moves:
                if move.old in FINAL:
                    yield Violation("final", job, f"went from {move.old} to {move.new}")
            row, last = rows.get(job), moves[-1]
            now = (row.status, row.attempt, row.token) if row else None
            if now != (last.new, last.attempt, last.token) and last.new is not None:
                yield Violation("final", job, f"is {now}, but its last move made it {last.new}")
        for job in rows.keys() - self.moves.keys():
            yield Violation("final", job, "came to be without a move")

    def legal(self) -> Iterator[Violation]:
        """Only the moves of the protocol, each from where the one before has led."""
        for job, moves in self.moves.items():
            before: tuple[str | None, int, str | None] = (None, 0, None)
            for move in moves:
                if (move.old, move.new) not in LEGAL:
                    claims = move.old == move.new == "processing" and move.token != move.old_token
                    what = "two live claims" if claims else f"from {move.old} to {move.new}"
                    yield Violation("move", job, what)
                if before != (move.old, move.old_attempt, move.old_token):
                    yield Violation("move", job, f"begins at {move.old}, not at {before[0]}")
                before = (move.new, move.attempt, move.token)

    def attempts(self) -> Iterator[Violation]:
        """A claim counts one, a start handed back counts none, a failure takes none away."""
        most = {row.job: row.max_attempts for row in self.history.rows}
        for job, moves in self.moves.items():
            for move in moves:
                step = move.attempt - move.old_attempt
                if step not in _steps(move):
                    yield Violation("attempt", job, f"{step:+d} from {move.old} to {move.new}")
                if move.attempt > most.get(job, move.attempt):
                    yield Violation("attempt", job, f"{move.attempt} of at most {most[job]}")
        for row in self.history.rows:
            if list(row.errors) != sorted(set(row.errors)) or len(row.errors) > row.attempt:
                yield Violation("attempt", row.job, f"{row.attempt}, but failed at {row.errors}")

    def tokens(self) -> Iterator[Violation]:
        """A new token for each claim, and none without a claim."""
        for job, moves in self.moves.items():
            known: set[str | None] = {None}
            for move in moves:
                if (move.new == "processing") != (move.token is not None):
                    yield Violation("token", job, f"{move.new} with token {move.token}")
                if move.old == "pending" and move.new == "processing" and move.token in known:
                    yield Violation("token", job, "claimed under a token of an earlier claim")
                known.add(move.token)

    def outcomes(self) -> Iterator[Violation]:
        """What is recorded comes from the claim that it ends, hence from the latest."""
        for job, moves in self.moves.items():
            claim: Move | None = None
            for move in moves:
                if move.new == "processing":
                    claim = move
                elif move.execution:
                    yield from self._outcome(job, claim, move.execution)

    def _outcome(self, job: str, claim: Move | None, name: str) -> Iterator[Violation]:
        execution = self.executions.get(name)
        if execution is None or self.job_of_text.get(execution.text) != job:
            yield Violation("outcome", job, f"from {name}, which never worked on it")
            return
        found = self._claim_of(execution)
        if claim is None or found is None or found.move.token != claim.token:
            yield Violation("outcome", job, f"from {name}, which had not the latest claim")

    # What the workers did

    def ran(self) -> Iterator[Violation]:
        """A model works under a claim, once; and no longer than it holds, or not much."""
        under: dict[tuple[str, str | None], list[Execution]] = defaultdict(list)
        calm, worst = self._disturbed(), 0.0
        for execution in self.history.executions:
            claim = self._claim_of(execution)
            of_another = claim is None or claim.end < execution.started
            if of_another and is_forgotten_for_good(execution, self.history):
                continue
            if claim is None:
                yield Violation("execution", execution.text, "without a claim")
                continue
            under[claim.job, claim.move.token].append(execution)
            stale = calm.outside(claim.end, execution.last_seen)
            worst = max(worst, stale)
            if stale > self.bounds.fence:
                said = f"went on for {stale:.1f} s after its claim was lost"
                yield Violation("late", execution.text, said)
        for executions in under.values():
            if len(executions) > 1:
                yield Violation("execution", executions[0].text, "twice under one claim")
        self.figures["stale_seconds_worst"] = worst

    # Cancels

    def cancels(self) -> Iterator[Violation]:
        """After the acknowledgement: no start, no way back, and an end within the bound."""
        disturbed, worst = self._disturbed(), 0.0
        for done in self._operations("cancel", "ok"):
            moves = self.moves.get(done.job or "", [])
            for move in moves:
                if move.at > done.returned and move.new in ("processing", "pending"):
                    said = f"went from {move.old} to {move.new} after its cancel"
                    yield Violation("cancel", str(done.job), said)
            end = next((move.at for move in moves if move.new in FINAL), None)
            if end is None:
                continue  # which is reported as unfinished
            waited = disturbed.outside(done.returned, end)
            worst = max(worst, waited)
            if waited > self.bounds.cancel:
                yield Violation("late", str(done.job), f"final {waited:.1f} s after its cancel")
        self.figures["cancel_seconds_worst"] = worst

    # Runners

    def runners(self) -> Iterator[Violation]:
        """Only the dead are found dead, and robbed, and the dead do not come back."""
        for seen in self.history.runner_moves:
            if seen.was_lost and not seen.is_lost:
                yield Violation("runner", seen.runner, "came back under the id that was lost")
            if seen.is_lost and not self._has_cause(seen.runner, seen.at):
                yield Violation("runner", seen.runner, "was found dead, and nothing ailed it")
        for job, moves in self.moves.items():
            for move in moves:
                if move.code == "runner_lost" and move.holder_lives:
                    yield Violation("runner", job, f"rescued from {move.old_runner}, who lives")

    def _has_cause(self, runner: str, at: float) -> bool:
        process = process_of(runner)
        if any(process == dead and moment <= at for moment, dead in self.history.deaths):
            return True
        return any(
            process in one.runners and one.begin <= at <= one.end + self.bounds.cause
            for one in self.history.disturbances
        )

    # Waits

    def late_rescues(self) -> Iterator[Violation]:
        """What a killed runner held is free soon."""
        disturbed = self._disturbed(but={"runner_kill"})
        waits = []
        for killed, process in self.history.kills:
            for claim in self._claims_at(killed, process):
                waits.append(disturbed.outside(killed, claim.end))
                if waits[-1] > self.bounds.rescue:
                    said = f"held {waits[-1]:.1f} s for a runner that was killed"
                    yield Violation("late", claim.job, said)
        known = [wait for wait in waits if wait < float("inf")]
        self.figures["rescues"] = len(known)
        self.figures["rescue_seconds_median"] = median(known) if known else 0.0
        self.figures["rescue_seconds_worst"] = max(known, default=0.0)

    def late_starts(self) -> Iterator[Violation]:
        """A job that is due is claimed soon, while half of the workers have nothing to do."""
        idle = self._idle()
        waits = [0.0]
        for job, moves in self.moves.items():
            for move, following in zip(moves, [*moves[1:], None], strict=True):
                if move.new != "pending":
                    continue
                end = following.at if following else self.history.drained or self._end()
                waits.append(idle.within(max(move.run_at, move.at), end))
                if waits[-1] > self.bounds.start:
                    said = f"not claimed for {waits[-1]:.1f} s while workers were idle"
                    yield Violation("late", job, said)
        self.figures["start_seconds_worst"] = max(waits)

    def leftovers(self) -> Iterator[Violation]:
        """Nothing is left running."""
        for name in self.history.leftovers:
            yield Violation("leftover", name, "was there after the end")

    def crashes(self) -> Iterator[Violation]:
        """No error is unforeseen."""
        for crash in self.history.crashes:
            yield Violation("crash", *crash.split(": ", 1))

    # Helpers

    def _operations(self, kind: str, result: str | None = None) -> Iterator[Operation]:
        for done in self.history.operations:
            if done.kind == kind and result in (None, done.result):
                yield done

    def _claim_of(self, execution: Execution) -> Claim | None:
        """The claim that an execution was started under: the latest of its runner before it."""
        job = self.job_of_text.get(execution.text, "")
        theirs = [claim for claim in self.claims.get(job, []) if claim.precedes(execution)]
        return theirs[-1] if theirs else None

    def _claims_at(self, moment: float, process: int) -> Iterator[Claim]:
        for claims in self.claims.values():
            for claim in claims:
                if claim.runner == process and claim.move.at <= moment < claim.end:
                    yield claim

    def _disturbed(self, but: set[str] | None = None) -> Measure:
        """The time in which runners had something else to cope with, or had just had."""
        return Measure(
            (one.begin, one.end + self.bounds.recovery)
            for one in self.history.disturbances
            if one.runners != (0,) and one.kind not in (but or set())
        )

    def _idle(self) -> Measure:
        """The undisturbed time in which at least half of the workers had no claim.

        Listeners may be broken: runners hear of jobs without.
        """
        disturbed = self._disturbed(but={"cut_listener", "half_open_listener"})
        claims = (
            (move.at, (move.new == "processing") - (move.old == "processing"))
            for move in self.history.moves
        )
        spans = spans_at_most(self.history.workers / 2, claims, self._end())
        return Measure(part for span in spans for part in without(span, disturbed.intervals))

    def _ends(self, kind: str) -> Iterator[float]:
        for one in self.history.disturbances:
            if one.kind == kind:
                yield one.end

    def _back_after(self, moment: float) -> float:
        """How long until a client had a submit acknowledged again."""
        after = (done.returned for done in self._operations("submit", "ok"))
        return min((at - moment for at in after if at >= moment), default=float("inf"))

    def _end(self) -> float:
        return max((move.at for move in self.history.moves), default=0.0) + (
            0.0 if self.history.drained else self.bounds.start * 10
        )

    def _count(self) -> None:
        rows = self.history.rows
        texts = {row.text for row in rows}
        unknown = {done.text for done in self._operations("submit", "unknown")}
        self.figures |= {
            "jobs": len(rows),
            "acknowledged": sum(1 for _ in self._operations("submit", "ok")),
            "unknown": len(unknown),
            "unknown_but_there": len(unknown & texts),
            "completed": sum(row.status == "completed" for row in rows),
            "moves": len(self.history.moves),
            "executions": len(self.history.executions),
            "taken_up_again": sum(
                claim.is_taken_up_again for claims in self.claims.values() for claim in claims
            ),
            "overlaps": overlaps(self.history.executions),
            "runners_lost": sum(seen.is_lost for seen in self.history.runner_moves),
            "failover_back_seconds": max(
                map(self._back_after, self._ends("failover")), default=0.0
            ),
            "drain_seconds": (self.history.drained or 0.0) - self.history.healed,
        }


def _steps(move: Move) -> tuple[int, ...]:
    """By how much a move may change the count."""
    if move.old == "pending" and move.new == "processing":
        return (1,)
    if move.old == "processing" and move.new == "pending" and move.code is None:
        return (-1,)
    return (0,)
