"""Fetching a file from Meta: what its errors mean for the file, which is not what they mean for a send."""

import aiohttp
import pytest

from replyline.channels import CHANNELS
from replyline.errors import JobError, Permanent, Temporary
from replyline.jobs import MediaRef
from tests.channels.far_end import FarEnd, Say
from tests.channels.graph import account_at, meta_error

FILE = MediaRef(kind="image", provider_id="9")


async def failure(say: Say, http: aiohttp.ClientSession, far_end: FarEnd) -> JobError:
    """What the fetch says when it is answered so."""
    far_end.then = [say]
    with pytest.raises(JobError) as raised:
        async for _ in CHANNELS["WHATSAPP_CLOUD"].fetch_media(account_at(far_end.url), FILE, http):
            pass
    return raised.value


async def test_a_file_that_graph_does_not_know_is_gone_and_says_so(
    http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    error = await failure(meta_error(400, 100, error_subcode=33), http, far_end)
    assert (type(error), error.reason) == (Permanent, "media_unknown")


@pytest.mark.parametrize(("code", "reason"), [(190, "token_invalid"), (131031, "account_locked")])
async def test_a_file_is_tried_again_while_the_channel_is_mended(
    code: int, reason: str, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    error = await failure(meta_error(401, code), http, far_end)
    assert (type(error), error.reason) == (Temporary, reason)
