"""Shut the network for stages that have no business there."""

import os
import sys
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from stages.common.errors import AttuneError

HUB_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def shut_network(stage: str, tracking_uri: str | None) -> None:
    """Make every look-up or connection in this process fail, loopback and the tracking server excepted.

    An audit hook sees `socket` calls of every Python library; it cannot be taken off again, which suits a process
    that runs one stage (PEP 578).
    """
    os.environ.update(HUB_OFFLINE)
    tracking_host = urlsplit(tracking_uri).hostname if tracking_uri else None
    allowed = {tracking_host} if tracking_host else set()

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            host = arguments[0]
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        else:
            return
        name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
        if name in allowed:
            return
        if not _is_local(name) and not (event == "socket.connect" and tracking_host and _is_address(name)):
            raise AttuneError(
                f"the stage {stage} tried to reach {name}, but only ingest may use the network",
                "fetch what it needs in ingest, or set MLFLOW_TRACKING_URI if this is the tracking server",
            )

    sys.addaudithook(refuse)


def _is_local(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
