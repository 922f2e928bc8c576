"""What every channel with files must pass, beside `ChannelContract`: files of people, and files sent by a link."""

import base64
import hashlib
import uuid
from typing import ClassVar

import aiohttp
import pytest

from replyline.channels import Channel, ChannelAccount, Outgoing
from replyline.contents import Media
from replyline.errors import JobError, Permanent, Temporary
from replyline.jobs import MediaRef
from tests.channels.far_end import Call, Cut, FarEnd, Hang, Say

PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 600
REF = MediaRef(
    kind="image",
    provider_id="99",
    mime_type="image/jpeg",
    sha256=base64.b64encode(hashlib.sha256(PICTURE).digest()).decode(),
)


class MediaContract:
    """All but the tests is for the subclass to fill in."""

    channel: ClassVar[Channel]

    def account(self, url: str = "http://127.0.0.1:9") -> ChannelAccount:
        """An account whose sends go to `url`."""
        raise NotImplementedError

    def accepted(self) -> tuple[Say, str]:
        """The answer to a send that worked, and the id it gives the message."""
        raise NotImplementedError

    def bearer_of(self, account: ChannelAccount) -> str:
        """The secret that a call carries."""
        raise NotImplementedError

    def hands_over(self, url: str, data: bytes) -> list[Say | Hang | Cut]:
        """How the far end at `url` answers who asks for the file REF, call by call; the last hands it over."""
        raise NotImplementedError

    def file_sent(self, call: Call) -> tuple[object, object, object]:
        """Kind, link and caption of the file in a send."""
        raise NotImplementedError

    async def test_a_file_is_fetched_whole_with_the_accounts_secret(
        self, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = self.hands_over(far_end.url, PICTURE)
        account = self.account(far_end.url)
        assert await self._fetched(account, http) == PICTURE
        assert [call.method for call in far_end.calls] == ["GET"] * len(far_end.calls)
        assert all(self.bearer_of(account) in call.headers["authorization"] for call in far_end.calls)

    async def test_a_file_that_is_not_the_announced_one_is_not_kept(
        self, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = self.hands_over(far_end.url, PICTURE[:-1])
        assert (await self._fetch_failure(http, far_end)).reason == "media_hash"

    async def test_a_file_that_is_gone_is_not_asked_for_again(
        self, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = [self.gone()]
        assert isinstance(await self._fetch_failure(http, far_end), Permanent)

    def gone(self) -> Say:
        """The answer to who asks for a file that nobody has."""
        raise NotImplementedError

    async def test_a_file_that_is_cut_off_is_asked_for_again(
        self, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = [*self.hands_over(far_end.url, PICTURE)[:-1], Cut()]
        assert isinstance(await self._fetch_failure(http, far_end), Temporary)

    async def test_a_file_that_does_not_come_in_time_is_asked_for_again(
        self, impatient: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = [*self.hands_over(far_end.url, PICTURE)[:-1], Hang()]
        assert isinstance(await self._fetch_failure(impatient, far_end), Temporary)

    @pytest.mark.parametrize("kind", ["image", "video", "document"])
    async def test_a_file_is_sent_by_its_link_with_its_caption(
        self, kind: str, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = [self.accepted()[0]]
        content = Media(kind=kind, link="https://shop.example/menu", caption="Our menu")  # type: ignore[arg-type]
        message = Outgoing(uuid.uuid4(), "16505551234", "Our menu\nhttps://shop.example/menu", content)
        accepted = await self.channel.send(self.account(far_end.url), message, http)
        assert accepted.external_id == self.accepted()[1]
        (call,) = far_end.calls
        assert self.file_sent(call) == (kind, "https://shop.example/menu", "Our menu")

    async def _fetched(self, account: ChannelAccount, http: aiohttp.ClientSession) -> bytes:
        return b"".join([chunk async for chunk in self.channel.fetch_media(account, REF, http)])

    async def _fetch_failure(self, http: aiohttp.ClientSession, far_end: FarEnd) -> JobError:
        with pytest.raises(JobError) as raised:
            await self._fetched(self.account(far_end.url), http)
        return raised.value
