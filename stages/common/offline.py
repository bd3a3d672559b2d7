"""Block the network for stages that must not use it."""

import os
import socket
import sys
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from stages.common.distributed import world_size
from stages.common.errors import AttuneError

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
NO_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")  # of loading and saving
# Audit events with the index of the host or address among their arguments.
LOOK_UPS = {f"socket.{name}": 0 for name in ("getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo")}
CONNECTIONS = {f"socket.{name}": 1 for name in ("connect", "sendto", "sendmsg")}


def shut_network(stage: str, tracking_uri: str | None) -> None:
    """Make every look-up, connection or datagram of this process fail, except to this machine and two others.

    Those are the tracking server, and the machine that leads where several train together. Libraries of Hugging Face
    learn that there is no network, and say nothing of routine.

    An audit hook sees the `socket` calls of every Python library. It cannot be removed, which suits a process that runs
    one stage (PEP 578). Where the tracking server is given by name, connections to any IP address pass: an address does
    not show which name it was resolved from.
    """
    os.environ.update({**dict.fromkeys((*OFFLINE, *NO_BARS), "1"), "TRANSFORMERS_VERBOSITY": "error"})
    try:
        tracking_host = urlsplit(tracking_uri or "").hostname
    except ValueError as error:
        raise AttuneError(f"MLFLOW_TRACKING_URI is no address ({error})", "correct it, or unset it") from None
    leader = os.environ.get("MASTER_ADDR", "").lower() if world_size() > 1 else None
    allowed = {socket.gethostname().lower(), "localhost", tracking_host, leader}
    any_address = tracking_host not in (None, "localhost") and not _is_address(tracking_host)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        index = LOOK_UPS.get(event, CONNECTIONS.get(event))
        if index is None:
            return
        host = arguments[index]
        if isinstance(host, tuple):
            host = host[0]
        elif event in CONNECTIONS:  # a Unix socket, or a datagram on a socket that is connected
            return
        name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
        address = _is_address(name)
        if name.lower() in allowed or (address and ip_address(name).is_loopback):
            return
        if not (any_address and event == "socket.connect" and address):
            what = f"the stage {stage} tried to reach {name}, but only ingest may use the network"
            fix = "fetch what it needs in ingest, or set MLFLOW_TRACKING_URI if this is the tracking server"
            raise AttuneError(what, fix)

    sys.addaudithook(refuse)


def _is_address(name: str | None) -> bool:
    try:
        return bool(ip_address(name or ""))
    except ValueError:
        return False
