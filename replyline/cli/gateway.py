"""The QR gateway beside us: where it is, whether it can run here, and the keys it runs with."""

import base64
import os
import secrets
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

from replyline.environment import of_this_machine

_CHECKOUT = Path(__file__).resolve().parents[2] / "gateway"
_NODE_AT_LEAST = 20
_ANSWERS_S = 10.0


class GatewayKeys(msgspec.Struct):
    """What proves us to the gateway, and what seals its data; both are made at the first start."""

    token: str
    key: str


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that can be started: its command, and its environment beside ours."""

    command: list[str]
    keys: GatewayKeys
    data: Path

    def environment(self, port: int) -> dict[str, str]:
        """What it reads; port 0 picks a free one."""
        return {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "GATEWAY_DATA": str(self.data),
            "GATEWAY_KEY": self.keys.key,
            "GATEWAY_TOKEN": self.keys.token,
        }


class NoGateway(Exception):
    """The gateway cannot run here; the message says what would be needed."""


def find_gateway(data: Path) -> Gateway:
    """The gateway of this checkout, with its data below `data`.

    Raises:
        NoGateway: see there.
    """
    node = shutil.which("node")
    if node is None or _major(node) < _NODE_AT_LEAST:
        raise NoGateway(f"WhatsApp by QR needs Node {_NODE_AT_LEAST} or newer; everything else runs without")
    entry = _CHECKOUT / "dist" / "src" / "main.js"
    if not (_CHECKOUT / "package.json").is_file():
        raise NoGateway(
            "the QR gateway is not in the package: run gateway/ of the source (its README says how) or Evolution API; "
            "everything else runs without"
        )
    if not entry.is_file():
        raise NoGateway("the QR gateway is not built: make gateway")
    folder = (data / "gateway").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return Gateway([node, str(entry)], _keys(folder / "keys.json"), folder)


def _major(node: str) -> int:
    try:
        said = subprocess.run(
            [node, "--version"],
            env=of_this_machine(),
            capture_output=True,
            text=True,
            timeout=_ANSWERS_S,
            check=True,
        ).stdout
        return int(said.strip().removeprefix("v").partition(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def _keys(file: Path) -> GatewayKeys:
    try:
        return msgspec.json.decode(file.read_bytes(), type=GatewayKeys)
    except FileNotFoundError:
        keys = GatewayKeys(secrets.token_urlsafe(32), base64.b64encode(secrets.token_bytes(32)).decode())
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(msgspec.json.encode(keys))
        return keys
