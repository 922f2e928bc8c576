"""Sends, channels that are down, callbacks and files."""

from pydantic import Field
from pydantic_settings import BaseSettings


class ChannelSettings(BaseSettings):
    """Sends, channels that are down, callbacks and files."""

    reconcile_after_s: float = Field(
        20.0, ge=0, le=600, description="how long a send of unknown outcome waits for a status"
    )
    window_margin_s: float = Field(
        300.0, ge=0, le=3600, description="free text stops so long before WhatsApp's 24 hours are over"
    )
    probe_first_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="first check whether an unhealthy channel works again; then twice as long each time",
    )
    probe_longest_s: float = Field(3600.0, gt=0, le=86400, description="longest pause between such looks")
    hold_at_most_s: float = Field(
        86400.0, gt=0, description="messages that an unhealthy channel has held so long are given up"
    )
    degraded_after_s: float = Field(
        90.0,
        gt=0,
        le=86400,
        description="a QR channel whose messages WhatsApp does not confirm for so long is unhealthy",
    )
    park_statuses_s: float = Field(
        600.0, gt=0, le=86400, description="how long a status waits for its message to become known"
    )
    keep_unread_callbacks_s: float = Field(
        7 * 86400.0, gt=0, description="how long callbacks that were not understood are kept"
    )
    media_url: str | None = Field(
        None,
        description="where files of people are kept: a folder, or s3://bucket/prefix; media/ in the data folder if not set",
    )
    keep_media_s: float = Field(30 * 86400.0, gt=0, description="how long files of people are kept")
    media_hosts: str = Field(
        "graph.facebook.com lookaside.fbsbx.com *.fbcdn.net *.whatsapp.net",
        description="hosts that files of people are fetched from (https), beside the channel's Graph API, with a space between",
    )
    media_wait_s: float = Field(
        8.0, ge=0, le=60, description="how long a turn waits for a picture that its model can look at"
    )
    graph_base: str = Field(
        "https://graph.facebook.com", description="WhatsApp Cloud API, unless a channel names its own"
    )
    graph_version: str = Field("v25.0", description="Graph API version, unless a channel names its own")

    @property
    def graph_defaults(self) -> dict[str, str]:
        """What a channel WHATSAPP_CLOUD has where its own configuration says nothing."""
        return {"graph_base": self.graph_base, "graph_version": self.graph_version, "media_hosts": self.media_hosts}
