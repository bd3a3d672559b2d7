"""A real PostgreSQL in a folder of its own, for as long as a test module runs."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "hunter2 %/@"  # needs escaping in an address


def unprivileged() -> dict[str, Any]:
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server that listens on a Unix socket alone; yield its address. Skips the test where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian keeps initdb and pg_ctl out of PATH
    initdb = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:  # a socket's path must be short
        folder, who = Path(name), unprivileged()
        if who:
            os.chown(folder, who["user"], who["group"])
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)

        def run(program: str, *arguments: str) -> None:
            command = [str(Path(initdb).with_name(program)), *arguments]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **who)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

        data = str(folder / "data")
        run("initdb", "-D", data, "-U", "owner", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync",
            "--encoding=UTF8", "--locale=C")  # fmt: skip
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c shared_buffers=16MB"
        log = str(folder / "log")
        run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield f"postgresql://owner:hunter2%20%25%2F%40@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
