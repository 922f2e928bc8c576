"""What every channel must pass: subclass `ChannelContract` as `Test…`, and say how your channel looks on the wire."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import aiohttp
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from replyline import jobs
from replyline.channels import (
    Callback,
    Channel,
    ChannelAccount,
    ForgedCallback,
    InboundMessage,
    Outgoing,
    UnreadableCallback,
)
from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.jobs import INCOMING_MESSAGES, ChannelKind, IncomingMessageJob
from tests.channels.far_end import Call, Cut, FarEnd, Hang, Say, closed_port
from tests.channels.mutations import mutated

_MANY = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)


def make_account(
    kind: ChannelKind, external_id: str, *, config: Mapping[str, str], secrets: Mapping[str, str]
) -> ChannelAccount:
    """A connected account that no store knows."""
    return ChannelAccount(
        id=uuid.uuid4(),
        customer_id=uuid.uuid4(),
        chatbot_id=uuid.uuid4(),
        kind=kind,
        channel_key="ck_test",
        external_id=external_id,
        config=config,
        secrets=secrets,
    )


class ChannelContract:
    """The suite. All but the tests is for the subclass to fill in."""

    channel: ClassVar[Channel]
    limited_after_s: ClassVar[float]
    """The wait that `limited` asks for."""

    def account(self, url: str = "http://127.0.0.1:9") -> ChannelAccount:
        """An account whose sends go to `url`."""
        raise NotImplementedError

    def callback(self) -> object:
        """A genuine callback of that account with at least one message, before it is encoded."""
        raise NotImplementedError

    def raw_callback(self) -> bytes:
        """The same, encoded."""
        raise NotImplementedError

    def signed(self, account: ChannelAccount, raw: bytes) -> dict[str, str]:
        """The headers that prove `raw` genuine."""
        raise NotImplementedError

    def accepted(self) -> tuple[Say, str]:
        """The answer to a send that worked, and the id it gives the message."""
        raise NotImplementedError

    def refused(self) -> Say:
        """The answer to a send that will never work."""
        raise NotImplementedError

    def limited(self) -> Say:
        """The answer to a send that comes too early."""
        raise NotImplementedError

    def our_id_of(self, call: Call) -> str | None:
        """Where a send carries our message id."""
        raise NotImplementedError

    def bearer_of(self, account: ChannelAccount) -> str:
        """The secret that a send carries."""
        raise NotImplementedError

    def test_a_genuine_callback_is_verified(self) -> None:
        account, raw = self.account(), self.raw_callback()
        self.channel.verify(account, self.signed(account, raw), raw)
        assert self.channel.parse(account, raw).messages

    @_MANY
    @given(data=st.data())
    def test_a_callback_with_one_byte_changed_is_refused(self, data: st.DataObject) -> None:
        account, raw = self.account(), self.raw_callback()
        headers = self.signed(account, raw)
        at = data.draw(st.integers(0, len(raw) - 1))
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[at]))
        with pytest.raises(ForgedCallback):
            self.channel.verify(account, headers, raw[:at] + bytes([other]) + raw[at + 1 :])

    def test_a_callback_signed_with_another_secret_is_refused(self) -> None:
        account, raw = self.account(), self.raw_callback()
        stranger = replace(account, secrets=dict.fromkeys(account.secrets, "another-secret"))
        with pytest.raises(ForgedCallback):
            self.channel.verify(account, self.signed(stranger, raw), raw)

    def test_a_callback_without_a_signature_is_refused(self) -> None:
        with pytest.raises(ForgedCallback):
            self.channel.verify(self.account(), {}, self.raw_callback())

    def test_an_account_without_a_secret_takes_no_callback(self) -> None:
        account, raw = replace(self.account(), secrets={}), self.raw_callback()
        empty = replace(account, secrets=dict.fromkeys(self.account().secrets, ""))
        with pytest.raises(ForgedCallback):
            self.channel.verify(account, self.signed(empty, raw), raw)

    @_MANY
    @given(st.text(st.characters(codec=None), max_size=80))
    def test_whatever_stands_where_the_signature_should_is_refused(self, anything: str) -> None:
        account, raw = self.account(), self.raw_callback()
        with pytest.raises(ForgedCallback):
            self.channel.verify(account, dict.fromkeys(self.signed(account, raw), anything), raw)

    def test_a_callback_for_another_account_brings_nothing(self) -> None:
        callback = self.channel.parse(replace(self.account(), external_id="another"), self.raw_callback())
        assert callback == Callback(elsewhere={self.account().external_id: 1})

    @_MANY
    @given(data=st.data())
    def test_a_callback_gone_wrong_is_read_or_refused_and_what_is_read_can_be_queued(self, data: st.DataObject) -> None:
        raw = data.draw(mutated(self.callback()))
        try:
            callback = self.channel.parse(self.account(), raw)
        except UnreadableCallback:
            event("unreadable")
            return
        event(f"{len(callback.messages)} messages")
        for message in callback.messages:
            assert_can_be_queued(message)
        for status in callback.statuses:
            assert status.external_id
            assert "\x00" not in status.external_id + (status.error_detail or "")

    @pytest.mark.parametrize("raw", [b"", b"null", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000, b"{" * 100_000])
    def test_what_is_no_callback_at_all_is_unreadable(self, raw: bytes) -> None:
        with pytest.raises(UnreadableCallback):
            self.channel.parse(self.account(), raw)

    async def test_an_accepted_send_gives_the_channels_id_and_carries_ours(
        self, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        say, external_id = self.accepted()
        far_end.then = [say]
        text = outgoing()
        accepted = await self.channel.send(self.account(far_end.url), text, http)
        assert accepted.external_id == external_id
        assert [self.our_id_of(call) for call in far_end.calls] == [str(text.message_id)]

    async def test_a_refused_send_is_permanent(self, http: aiohttp.ClientSession, far_end: FarEnd) -> None:
        far_end.then = [self.refused()]
        error = await self._failure(far_end.url, http)
        assert isinstance(error, Permanent)
        assert error.reason

    async def test_a_send_that_comes_too_early_is_told_how_long_to_wait(
        self, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = [self.limited()]
        error = await self._failure(far_end.url, http)
        assert isinstance(error, RateLimited)
        assert error.after == self.limited_after_s

    async def test_a_send_that_reached_nobody_has_surely_not_gone_out(self, http: aiohttp.ClientSession) -> None:
        async with closed_port() as url:
            error = await self._failure(url, http)
        assert isinstance(error, Temporary)
        assert not error.outcome_unknown

    async def test_a_send_cut_off_before_its_answer_may_have_gone_out(
        self, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = [Cut()]
        error = await self._failure(far_end.url, http)
        assert isinstance(error, Temporary)
        assert error.outcome_unknown
        assert len(far_end.calls) == 1

    async def test_a_send_not_answered_in_time_may_have_gone_out(
        self, impatient: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = [Hang()]
        error = await self._failure(far_end.url, impatient)
        assert isinstance(error, Temporary)
        assert (error.reason, error.outcome_unknown) == ("timeout", True)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"null", b"\xff\xfe", b"[" * 70_000])
    async def test_an_accepted_send_without_an_id_is_not_taken_for_sent(
        self, body: bytes, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        far_end.then = [Say(200, body)]
        error = await self._failure(far_end.url, http)
        assert isinstance(error, Temporary)
        assert error.outcome_unknown or self.channel.repeat_is_safe

    async def test_an_overloaded_server_is_tried_again(self, http: aiohttp.ClientSession, far_end: FarEnd) -> None:
        far_end.then = [Say(502, b"<html>Bad Gateway</html>")]
        assert isinstance(await self._failure(far_end.url, http), Temporary)

    async def test_a_redirect_is_not_followed(self, http: aiohttp.ClientSession, far_end: FarEnd) -> None:
        far_end.then = [Say(307, headers={"Location": "/elsewhere"}), self.accepted()[0]]
        assert isinstance(await self._failure(far_end.url, http), Permanent)
        assert len(far_end.calls) == 1

    @pytest.mark.parametrize("url", ["not a url", "ftp://127.0.0.1", "http://"])
    async def test_an_address_that_is_no_url_is_a_mistake_of_the_channel(
        self, url: str, http: aiohttp.ClientSession
    ) -> None:
        error = await self._failure(url, http)
        assert isinstance(error, Permanent)
        assert error.reason == "channel_misconfigured"

    async def test_a_channel_without_its_configuration_sends_nothing(self, http: aiohttp.ClientSession) -> None:
        with pytest.raises(Permanent) as raised:
            await self.channel.send(replace(self.account(), config={}), outgoing(), http)
        assert raised.value.reason == "channel_misconfigured"

    async def test_a_secret_that_the_answer_quotes_is_not_in_the_error(
        self, http: aiohttp.ClientSession, far_end: FarEnd
    ) -> None:
        account = self.account(far_end.url)
        secret = self.bearer_of(account)
        far_end.then = [Say(400, {"error": {"code": self.odd_code(), "message": f"Malformed token {secret}"}})]
        with pytest.raises(JobError) as raised:
            await self.channel.send(account, outgoing(), http)
        assert secret in far_end.calls[0].headers["authorization"]
        assert "Malformed token" in str(raised.value)
        assert secret not in str(raised.value)

    def odd_code(self) -> int | str:
        """An error code that the channel's contract does not know."""
        raise NotImplementedError

    async def _failure(self, url: str, http: aiohttp.ClientSession) -> JobError:
        with pytest.raises(JobError) as raised:
            await self.channel.send(self.account(url), outgoing(), http)
        return raised.value


def outgoing(to: str = "16505551234", content: str = "Hello — “Grüße” 👋") -> Outgoing:
    """A text of ours."""
    return Outgoing(uuid.uuid4(), to, content)


def assert_can_be_queued(message: InboundMessage) -> None:
    """The message becomes a job that the worker can read, and a row that Postgres can keep."""
    job = IncomingMessageJob(
        chatbot_id=uuid.uuid4(),
        external_user_id=message.sender,
        content=message.content,
        channel="WIDGET",
        external_message_id=message.external_id,
        identity_kind=message.identity_kind,
        contact_name=message.name,
        reply_to=message.reply_to,
        content_type=message.content_type,
        provider_timestamp=message.provider_timestamp,
    )
    encoded = jobs.encode(job)
    assert jobs.decode(INCOMING_MESSAGES, encoded) == job
    assert b"\\u0000" not in encoded
