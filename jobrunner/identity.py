"""As whom PostgreSQL runs: it refuses to run as root.

Root's server runs as ``nobody``, or, where nobody can't reach the files, in a user namespace
in which root is not root.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobrunner.database import display
from jobrunner.errors import EmbeddedError


@dataclass(frozen=True)
class Identity:
    """As whom the server runs: a user to become, a command to run under, or neither."""

    user: pwd.struct_passwd | None = None
    prefix: tuple[str, ...] = ()

    @property
    def owner(self) -> tuple[int, int]:
        """The uid and gid that must own the files of the server."""
        return (self.user.pw_uid, self.user.pw_gid) if self.user else (os.geteuid(), os.getegid())

    @property
    def for_popen(self) -> dict[str, Any]:
        """What ``subprocess`` needs to become the user."""
        if self.user is None:
            return {}
        return {
            "user": self.user.pw_uid,
            "group": self.user.pw_gid,
            "extra_groups": [],
            "cwd": "/",
        }

    def own(self, path: Path) -> None:
        """Give the user a file, or a folder with all that is in it."""
        uid, gid = self.owner
        os.chown(path, uid, gid)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)


def find_identity(binaries: Path, home: Path) -> Identity:
    """Find as whom the programs run that can reach the folder.

    :raises EmbeddedError: when there is nobody.
    """
    if os.geteuid() != 0:
        return Identity()
    user = pwd.getpwnam("nobody")
    nobody = Identity(user=user)
    if _runs(nobody, binaries, home):
        return nobody
    # Mapped to a user that is sure to be known: initdb asks for its name.
    names = (f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}")
    mapped = Identity(prefix=("unshare", "--user", *names, "--"))
    if shutil.which("unshare") and _runs(mapped, binaries, home):
        return mapped
    raise EmbeddedError(
        "PostgreSQL does not run as root, and the user nobody can not reach"
        f" {display(home)} and {binaries}: run as an ordinary user, or set DATABASE_URL"
    )


def _runs(identity: Identity, binaries: Path, home: Path) -> bool:
    script = 'cd "$1" && exec "$2" --version'
    command = [*identity.prefix, "sh", "-c", script, "sh", str(home), str(binaries / "postgres")]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return bool(subprocess.run(command, **quiet, **identity.for_popen).returncode == 0)
