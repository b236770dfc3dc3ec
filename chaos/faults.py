"""The faults: each breaks something, says whom it hit, waits to be continued, and mends it.

A fault is a generator. It yields, when the harm is done, the process ids of the runners that
it was done to: none is all of them, 0 is none of them. It goes on after the seconds of the
plan. One that yields nothing found nothing to break, and is tried again a moment later. They
run in the main thread, so that what they start dies with it.
"""

import random
import signal
from collections.abc import Callable, Iterator
from typing import Literal

from chaos.plan import Fault
from chaos.postgres import Postgres, send
from chaos.proxy import Channel
from chaos.system import Runner, System

Hit = tuple[int, ...]
Doing = Iterator[Hit]
Deed = Callable[[System, Fault], Doing]

DELAY_SECONDS = 0.2
EVERYBODY: Hit = ()
NOBODY: Hit = (0,)


def runner_kill(system: System, fault: Fault) -> Doing:
    """Kill -9 a runner and start it again after a while."""
    runner = system.runners[fault.target]
    if not runner.running or runner.kept_down:
        return
    runner.kept_down = True
    runner.send(signal.SIGKILL)
    yield (runner.pid,)
    runner.kept_down = False


def worker_kill(system: System, fault: Fault) -> Doing:
    """Kill -9 one worker of a runner."""
    workers = system.runners[fault.target].workers
    if workers:
        send([random.choice(workers)], signal.SIGKILL)
        yield NOBODY


def runner_pause(system: System, fault: Fault) -> Doing:
    """Stop a runner past its lease, and let it go on; its workers do not stop."""
    runner = system.runners[fault.target]
    if not runner.running or runner.kept_down:
        return
    pid = runner.pid
    send([pid], signal.SIGSTOP)
    yield (pid,)
    if runner.pid == pid:
        runner.send(signal.SIGCONT)


def postgres_fast_restart(system: System, fault: Fault) -> Doing:
    """Stop PostgreSQL with SIGINT and start it after a while."""
    postgres = system.postgres
    yield from _break(postgres, lambda: postgres.stop(signal.SIGINT), postgres.start_again)


def postgres_immediate_restart(system: System, fault: Fault) -> Doing:
    """Crash PostgreSQL and let it recover after a while."""
    postgres = system.postgres
    yield from _break(postgres, lambda: postgres.stop(signal.SIGQUIT), postgres.start_again)


def crash_after_claim(system: System, fault: Fault) -> Doing:
    """Crash PostgreSQL while a claim is not on its disk, and let it recover after a while."""
    postgres = system.postgres
    if not postgres.in_use and postgres.saw_claim_before_disk():
        yield from _break(postgres, lambda: postgres.stop(signal.SIGQUIT), postgres.start_again)


def failover(system: System, fault: Fault) -> Doing:
    """Lose the primary for good and promote the standby after a while."""
    postgres = system.postgres
    if postgres.has_standby:
        yield from _break(postgres, postgres.crash_primary, postgres.promote)


def standby_away(system: System, fault: Fault) -> Doing:
    """Stop the standby that every commit waits for, and start it after a while."""
    postgres = system.postgres
    if postgres.has_standby:
        yield from _break(postgres, postgres.stop_standby, postgres.start_standby_again)


def postgres_freeze(system: System, fault: Fault) -> Doing:
    """Stop every process of PostgreSQL in its tracks, and let them go on."""
    postgres, frozen = system.postgres, list[int]()

    def freeze() -> None:
        frozen.extend(postgres.processes())
        send(frozen, signal.SIGSTOP)

    yield from _break(postgres, freeze, lambda: send(frozen, signal.SIGCONT))


def _break(postgres: Postgres, harm: Callable[[], None], mend: Callable[[], None]) -> Doing:
    """What only one fault may do to PostgreSQL at a time."""
    if postgres.in_use:
        return
    postgres.in_use = True
    harm()
    yield EVERYBODY
    mend()
    postgres.in_use = False


def terminate_all(system: System, fault: Fault) -> Doing:
    """End every backend of a client."""
    yield from _terminate(system, 1.0)


def terminate_some(system: System, fault: Fault) -> Doing:
    """End about a third of the backends."""
    yield from _terminate(system, 0.34)


def _terminate(system: System, share: float) -> Doing:
    if not system.postgres.in_use and system.postgres.terminate(share):
        yield EVERYBODY


def cut_link(system: System, fault: Fault) -> Doing:
    """Reset the statements' connection of a runner and refuse it for a while."""
    runner = system.runners[fault.target]
    yield from _cut(system, runner.link, (runner.pid,))


def cut_listener(system: System, fault: Fault) -> Doing:
    """Reset the listening connection of a runner and refuse it for a while."""
    runner = system.runners[fault.target]
    yield from _cut(system, runner.listener, (runner.pid,))


def cut_web(system: System, fault: Fault) -> Doing:
    """Reset the connections of the web and refuse them for a while."""
    yield from _cut(system, system.web_channel, NOBODY)


def _cut(system: System, channel: Channel, hit: Hit) -> Doing:
    if channel.in_use or not system.proxy.do(channel.cut):
        return
    channel.in_use, channel.refuse = True, True
    yield hit
    system.proxy.do(channel.heal)


def half_open_link(system: System, fault: Fault) -> Doing:
    """Swallow what a runner says and what it would be answered."""
    runner = system.runners[fault.target]
    yield from _swallow(system, runner.link, "both", runner)


def half_open_listener(system: System, fault: Fault) -> Doing:
    """Swallow what the listening connection of a runner carries."""
    runner = system.runners[fault.target]
    yield from _swallow(system, runner.listener, "both", runner)


def half_open_web(system: System, fault: Fault) -> Doing:
    """Swallow what the web says and what it would be answered."""
    yield from _swallow(system, system.web_channel, "both", None)


def deaf_link(system: System, fault: Fault) -> Doing:
    """Let the statements of a runner take effect and swallow the answers."""
    runner = system.runners[fault.target]
    yield from _swallow(system, runner.link, "answers", runner)


def deaf_web(system: System, fault: Fault) -> Doing:
    """Let the statements of the web take effect and swallow the answers."""
    yield from _swallow(system, system.web_channel, "answers", None)


def _swallow(
    system: System, channel: Channel, what: Literal["both", "answers"], runner: Runner | None
) -> Doing:
    if channel.in_use:
        return
    channel.in_use, channel.swallow = True, what
    yield (runner.pid,) if runner else NOBODY
    system.proxy.do(channel.heal)


def late_link(system: System, fault: Fault) -> Doing:
    """Hold back what a runner has said, and deliver it when it has long connected anew."""
    runner = system.runners[fault.target]
    if runner.link.in_use or not system.proxy.do(runner.link.stall):
        return
    runner.link.in_use = True
    yield (runner.pid,)
    system.proxy.do(runner.link.heal)


def delays(system: System, fault: Fault) -> Doing:
    """Let each packet of every connection take its time."""
    channels = [one for one in (system.web_channel, *system.channels) if not one.in_use]
    for channel in channels:
        channel.in_use, channel.delay_seconds = True, DELAY_SECONDS
    yield EVERYBODY
    for channel in channels:
        system.proxy.do(channel.heal)


def stop_command(system: System, fault: Fault) -> Doing:
    """Ask a runner through the database to stop."""
    runner = system.runners[fault.target]
    if system.postgres.in_use or not runner.running or not (found := _id_of(system, runner)):
        return
    hit, command = (runner.pid,), system.command("stop", found, "--timeout", "15")
    yield hit
    while command.poll() is None:
        yield hit


def _id_of(system: System, runner: Runner) -> str:
    with system.postgres.connect() as connection:
        query = "select id from runner where pid = %s and lost_at is null"
        row = connection.execute(query, [runner.pid]).fetchone()
    return str(row[0]) if row else ""


def rolling_restart(system: System, fault: Fault) -> Doing:
    """SIGTERM one runner after the other; each is started again."""
    hit = tuple(runner.pid for runner in system.runners if runner.running)
    for runner in system.runners:
        runner.send(signal.SIGTERM)
        yield hit


def web_kill(system: System, fault: Fault) -> Doing:
    """Kill -9 the web with its workers and start it again after a while."""
    if not system.web.running or system.web.kept_down:
        return
    system.web.kept_down = True
    system.web.kill()
    yield NOBODY
    system.web.kept_down = False


DEEDS: dict[str, Deed] = {
    deed.__name__: deed
    for deed in (
        runner_kill, worker_kill, runner_pause, postgres_fast_restart,
        postgres_immediate_restart, crash_after_claim, failover, standby_away, postgres_freeze,
        terminate_all, terminate_some, cut_link, cut_listener, cut_web, half_open_link,
        half_open_listener, half_open_web, deaf_link, deaf_web, late_link, delays, stop_command,
        rolling_restart, web_kill,
    )
}  # fmt: skip
