"""The table of channels."""

from typing import get_args

from replyline.channels import CHANNELS
from replyline.jobs import ChannelKind


def test_every_kind_of_channel_has_its_implementation_and_knows_its_name() -> None:
    assert tuple(CHANNELS) == get_args(ChannelKind)
    assert {kind: channel.kind for kind, channel in CHANNELS.items()} == {kind: kind for kind in CHANNELS}
