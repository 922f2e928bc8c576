"""How often visitors of a widget may do what."""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from replyline.setting_groups.limits import CountLimit, read_rate_limit


class WidgetSettings(BaseSettings):
    """How often visitors of a widget may do what."""

    widget_visitors_per_address: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(5, 3600.0), description="new visitors of a widget from one address, as 5/3600 (seconds); off"
    )
    widget_visitors_per_site: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(30, 60.0), description="new visitors of one widget"
    )
    widget_messages_per_visitor: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(20, 60.0), description="messages of one visitor, at most 5 at once and one a second"
    )
    widget_messages_per_address: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(60, 60.0), description="messages to one widget from one address"
    )
    widget_conversations_per_address: Annotated[CountLimit | None, NoDecode] = Field(
        CountLimit(6, 43200.0), description="conversations begun with one widget from one address"
    )
    widget_streams_per_visitor: int = Field(
        3, ge=1, le=100, description="pages of one visitor that listen at once; further ones ask again and again"
    )

    @field_validator(
        "widget_visitors_per_address",
        "widget_visitors_per_site",
        "widget_messages_per_visitor",
        "widget_messages_per_address",
        "widget_conversations_per_address",
        mode="before",
    )
    @classmethod
    def _count_limits(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value == "off":
            return None
        try:
            limit = read_rate_limit(value)
        except ValueError as error:
            raise ValueError(f"a limit reads count/seconds, as 5/3600, or off, not {value!r}") from error
        return CountLimit(limit.jobs, limit.duration_s)
