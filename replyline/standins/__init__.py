"""Stand-ins for Meta, the QR gateway, an AI vendor and a customer's endpoint: real HTTP on loopback, that can be told to fail.

docs/standins.md has every route and every fault.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from replyline.standins.customer import CustomerStandin
from replyline.standins.openai import OpenAiStandin
from replyline.standins.qr_gateway import QrGatewayStandin
from replyline.standins.server import Standin
from replyline.standins.whatsapp_cloud import WhatsAppCloudStandin

NAMES = ("whatsapp_cloud", "qr_gateway", "openai", "customer")


class Standins:
    """All four, each on a port of its own."""

    def __init__(self, *, host: str = "127.0.0.1", ports: Mapping[str, int] | None = None) -> None:
        """`ports` fixes some; the others are free ones. Raises ValueError for a name that does not exist."""
        unknown = sorted(set(ports or {}) - set(NAMES))
        if unknown:
            raise ValueError(f"no such stand-in: {', '.join(unknown)}; there are {', '.join(NAMES)}")
        self._host = host
        self._ports = ports or {}
        self._servers: tuple[Standin, ...] = (
            WhatsAppCloudStandin(),
            QrGatewayStandin(),
            OpenAiStandin(),
            CustomerStandin(),
        )

    @property
    def urls(self) -> dict[str, str]:
        """Where each is, once they are started."""
        return {server.name: server.url for server in self._servers}

    async def start(self) -> None:
        """Listen. Raises OSError where a fixed port is taken; then none of them listens."""
        try:
            for server in self._servers:
                await server.start(self._host, self._ports.get(server.name, 0))
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening, and give up callbacks that wait."""
        for server in self._servers:
            await server.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


__all__ = ["NAMES", "Standins"]
