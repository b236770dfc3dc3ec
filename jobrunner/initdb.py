"""The making of a server's data, by PostgreSQL's own program."""

import re
import signal
import subprocess
from pathlib import Path

from jobrunner.errors import EmbeddedError
from jobrunner.identity import Identity
from jobrunner.processes import child_setup


def initdb(binaries: Path, data: Path, password_file: Path, identity: Identity) -> None:
    """Make the data of a server in an empty folder.

    :raises EmbeddedError: when that fails, with its reason.
    """
    command = [
        *identity.prefix, str(binaries / "initdb"), "--pgdata", str(data),
        "--username=postgres", f"--pwfile={password_file}", "--auth=scram-sha-256",
        "--encoding=UTF8", "--no-locale", "--no-instructions",
    ]  # fmt: skip
    # In a session of its own: a Ctrl-C of the terminal is not for it.
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        start_new_session=True,
        preexec_fn=child_setup(signal.SIGTERM),
        **identity.for_popen,
    )
    if done.returncode != 0:
        raise EmbeddedError(f"initdb failed: {failure_reason(done.stderr)}")


def failure_reason(said: str) -> str:
    """Find why initdb failed: its first error; what follows is what came of that."""
    if error := re.search(r"\b(?:error|ERROR|FATAL|PANIC): +(.+)", said):
        return error[1]
    return said.strip().partition("\n")[0] or "no reason given"
