"""Whether a runner sleeps: whether an insert is to wake it up."""

from collections.abc import Collection

from jobrunner import heartbeat, queue


class Sleep:
    """Whether a runner wants to be woken up at the next insert: when all its models are idle.

    While one is busy, each insert for that would notify; so the others look often instead.
    """

    def __init__(self, models: int = 1) -> None:
        self._models = models
        self._runner = ""
        self._asleep: set[str] = set()
        self._hears = True
        # What the row of the runner says; None where that is not known.
        self._told: bool | None = False
        # Whether any model has found a job since it was told that there is one.
        self.has_found = False

    @property
    def is_sound(self) -> bool:
        """Whether it is asleep for all models."""
        return len(self._asleep) == self._models

    def begin(self, runner: str) -> None:
        """Begin awake, under that id."""
        self._runner, self._asleep, self._told = runner, set(), False

    def holds(self, model: str) -> bool:
        """Whether it is asleep for a model."""
        return model in self._asleep

    def set(self, connection: queue.Connection, model: str, asleep: bool) -> None:
        """Fall asleep for a model, or wake up; the database is told where all are asleep."""
        now = self._asleep | {model} if asleep else self._asleep - {model}
        self._tell(connection, now)
        self._asleep = now

    def strike_off(self, connection: queue.Connection, model: str) -> None:
        """Wake up for a model, having been told of a job: so that is what the row has to say,
        whatever we think that it says."""
        self.doubt()
        self.set(connection, model, False)

    def doubt(self) -> None:
        """Say again what the row of the runner is to say: it may not have been kept."""
        self._told = None

    def listen(self, connection: queue.Connection, hears: bool) -> None:
        """Note whether notifications come: who is told of nothing must not be chosen, in place of
        another that would hear it. Who hears again falls asleep anew."""
        if hears and not self._hears:
            self._asleep = set()
        self._hears = hears
        self._tell(connection, self._asleep)

    def _tell(self, connection: queue.Connection, asleep: Collection[str]) -> None:
        wakes_up = self._hears and len(asleep) == self._models
        if wakes_up != self._told:
            self._told = None
            heartbeat.set_sleeping(connection, self._runner, wakes_up)
            self._told = wakes_up
