"""Makes the passwords of docker-compose.yml at the first start, and keeps them ever after.

Each service finds its own below ``/run/secrets`` and nothing else there: postgres a file a
login (it makes the logins with them), every other service one libpq password file. What is
there already stays, because the database knows it; a lost password file is written again.
"""

import argparse
import os
import secrets
from pathlib import Path

SUPERUSER = "superuser"
SERVICES = {"migrate": "owner_login", "web": "web_login", "jobrunner": "runner_login"}

POSTGRES_UID = 999  # the user postgres of the image postgres
SERVICE_UID = 10001  # the user jobrunner of our image


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the passwords that are not there yet.")
    parser.add_argument("--root", type=Path, default=Path("/run/secrets"))
    parser.add_argument("--postgres-uid", type=int, default=POSTGRES_UID)
    parser.add_argument("--service-uid", type=int, default=SERVICE_UID)
    options = parser.parse_args()

    postgres = options.root / "postgres"
    keep_password(postgres / SUPERUSER, options.postgres_uid)
    for service, login in SERVICES.items():
        password = keep_password(postgres / login, options.postgres_uid)
        # Host, port and database are open: the name of the login says enough.
        line = f"*:*:*:{login}:{password}"
        write_secret(options.root / service / "pgpass", line, options.service_uid)


def keep_password(path: Path, uid: int) -> str:
    """Return the password in the file, which is made if it is not there."""
    if not path.exists():
        write_secret(path, secrets.token_urlsafe(32), uid)
        print(f"made a password for {path.name}", flush=True)
    return path.read_text().strip()


def write_secret(path: Path, text: str, uid: int) -> None:
    """Write a file that only ``uid`` can read, whole or not at all."""
    fresh = path.with_name(path.name + ".part")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fchown(descriptor, uid, -1)
        os.fsync(descriptor)
    fresh.replace(path)


if __name__ == "__main__":
    main()
