"""Where files of people may be fetched from: Meta's hosts and the channel's own Graph API, whatever an answer says."""

from dataclasses import dataclass

from yarl import URL

from replyline.errors import Permanent


@dataclass(frozen=True, slots=True)
class FileHosts:
    """`listed` are hosts: `lookaside.fbsbx.com`, or `*.fbcdn.net` for all below that name. `graph` is a URL of the Graph API."""

    graph: str
    listed: tuple[str, ...]

    def check(self, address: URL) -> None:
        """Check an address before it is called, also one that a redirect gives.

        Listed hosts are called by https on its own port. The Graph API, which the operator sets, is called as it is set: the
        stand-ins speak http.

        Raises:
            Permanent: it leads somewhere else.
        """
        if not address.is_absolute() or not address.host or address.user is not None or address.password is not None:
            raise _refused("it is no address of a host")
        if address.origin() == URL(self.graph).origin():
            return
        if address.scheme != "https" or address.port != 443:
            raise _refused("it is not https on port 443")
        host = address.host.lower().rstrip(".")
        if not any(_names(listed, host) for listed in self.listed):
            raise _refused(f"{host[:100]} is none of REPLYLINE_MEDIA_HOSTS")


def _names(listed: str, host: str) -> bool:
    return host.endswith(listed[1:]) if listed.startswith("*.") else host == listed


def _refused(why: str) -> Permanent:
    return Permanent(f"the file's address is not called: {why}", reason="media_address")
