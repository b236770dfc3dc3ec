"""What can go wrong, in one tree; a class's docstring is its default message.

JobrunnerError
├── SettingsError
├── DatabaseError
│   ├── DatabaseNotFound
│   ├── DatabaseUnavailable
│   │   └── DatabaseRefused
│   └── SchemaMissing
├── MigrationError
├── EmbeddedError
├── AlreadyRunning
├── PortTaken
├── ModelLoadError
├── TrainingError
├── RunnerNotFound
├── NotStopped
├── InputError
├── ResumeError
└── FrameError

Every message is one line for a person, says what to do where something can be done, and
holds neither a secret nor an input text.
"""


class JobrunnerError(Exception):
    """Something went wrong in jobrunner."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SettingsError(JobrunnerError):
    """A setting is not valid."""


class DatabaseError(JobrunnerError):
    """The database refused what was asked."""


class DatabaseNotFound(DatabaseError):
    """DATABASE_URL is not set."""


class DatabaseUnavailable(DatabaseError):
    """The database does not answer."""


class DatabaseRefused(DatabaseUnavailable):
    """The database does not let us in: waiting does not help."""


class SchemaMissing(DatabaseError):
    """The tables are missing or too old: run `jobrunner migrate`."""


class MigrationError(JobrunnerError):
    """A migration could not be applied."""


class EmbeddedError(JobrunnerError):
    """The embedded PostgreSQL could not be started."""


class AlreadyRunning(JobrunnerError):
    """`jobrunner up` runs here already."""


class PortTaken(JobrunnerError):
    """The port is taken."""


class ModelLoadError(JobrunnerError):
    """The model could not be loaded."""


class TrainingError(JobrunnerError):
    """A model could not be trained on the examples."""


class RunnerNotFound(JobrunnerError):
    """There is no such runner; `jobrunner status` lists them."""


class NotStopped(JobrunnerError):
    """A runner did not stop in time."""


class InputError(JobrunnerError):
    """What is to be submitted is not valid."""


class ResumeError(JobrunnerError):
    """What was interrupted can not be continued."""


class FrameError(JobrunnerError):
    """A frame on a worker's pipe is too large or not JSON."""
