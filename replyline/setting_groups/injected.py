"""Variables that Kubernetes puts beside ours: for each Service of the namespace, named after it (`replyline`, say, or `redis`).

Kubernetes documentation, "Service", "Environment variables": {NAME}_SERVICE_HOST, {NAME}_SERVICE_PORT and Docker's variables
of linked containers.
"""

import re
from typing import Any

_NAME = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?$")
_VALUE = re.compile(r"^(tcp|udp|sctp)://")


def is_injected(name: str, value: str | None) -> bool:
    """Whether this variable tells of a Service and sets nothing of ours."""
    return bool(_NAME.search(name)) or is_service_address(value)


def is_service_address(value: Any) -> bool:
    """Whether a port reads as a Service's address, as tcp://10.0.0.1:6379."""
    return isinstance(value, str) and bool(_VALUE.match(value))
