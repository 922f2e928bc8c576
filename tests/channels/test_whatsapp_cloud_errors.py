"""The error codes of the WhatsApp Cloud API: each has its fate, whatever HTTP status it comes with."""

import aiohttp
import pytest

from replyline.channels import CHANNELS
from replyline.channels.whatsapp_cloud.errors import RULES, reason_of
from replyline.errors import ChannelDown, JobError, Permanent, RateLimited, Temporary
from tests.channels.contract_suite import outgoing
from tests.channels.far_end import FarEnd, Say
from tests.channels.graph import account_at, meta_error


async def failure(say: Say, http: aiohttp.ClientSession, far_end: FarEnd) -> JobError:
    """What a send says when it is answered so."""
    far_end.then = [say]
    with pytest.raises(JobError) as raised:
        await CHANNELS["WHATSAPP_CLOUD"].send(account_at(far_end.url), outgoing(), http)
    return raised.value


@pytest.mark.parametrize("status", [400, 429, 500])
@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (190, ChannelDown, "token_invalid"),
        (0, ChannelDown, "token_invalid"),
        (3, ChannelDown, "no_permission"),
        (200, ChannelDown, "no_permission"),
        (299, ChannelDown, "no_permission"),
        (100, Permanent, "invalid_parameter"),
        (368, ChannelDown, "policy_block"),
        (131026, Permanent, "undeliverable"),
        (131047, Permanent, "window_closed"),
        (131048, ChannelDown, "spam_restriction"),
        (4, RateLimited, "app_rate_limit"),
        (80007, RateLimited, "account_rate_limit"),
        (130429, RateLimited, "throughput_reached"),
        (131056, RateLimited, "pair_rate_limit"),
        (131057, RateLimited, "account_in_maintenance"),
        (133015, RateLimited, "number_recently_deleted"),
        (1, Temporary, "graph_error"),
        (131000, Temporary, "graph_unknown_error"),
        (131016, Temporary, "service_unavailable"),
    ],
)
async def test_the_code_decides_and_not_the_status(
    *, status: int, code: int, kind: type[JobError], reason: str, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    error = await failure(meta_error(status, code), http, far_end)
    assert type(error) is kind
    assert error.reason == reason


@pytest.mark.parametrize(
    ("say", "kind"),
    [
        (Say(400, b"Bad Request"), Permanent),
        (Say(413, b""), Permanent),
        (Say(408, b""), Temporary),
        (Say(429, b"slow down"), RateLimited),
        (Say(503, b"<html>"), Temporary),
        (Say(500, b"\xff\xfe"), Temporary),
        (meta_error(400, 999_999), Permanent),
        (meta_error(400, 999_999, is_transient=True), Temporary),
        (meta_error(429, 999_999), RateLimited),
        (meta_error(500, 999_999, is_transient=None), Temporary),
    ],
    ids=str,
)
async def test_without_a_known_code_the_status_decides(
    say: Say, kind: type[JobError], http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    assert type(await failure(say, http, far_end)) is kind


@pytest.mark.parametrize(("status", "unknown"), [(400, False), (500, True), (503, True)])
async def test_only_a_server_error_leaves_open_whether_the_message_went_out(
    status: int, unknown: bool, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    error = await failure(meta_error(status, 131000), http, far_end)
    assert isinstance(error, Temporary)
    assert error.outcome_unknown is unknown


@pytest.mark.parametrize(
    ("header", "after_s"),
    [("20", 20.0), ("999999", 3600.0), ("nan", 3.0), ("inf", 3600.0), ("-5", 3.0), ("soon", 3.0), ("", 3.0)],
)
async def test_a_retry_after_is_honoured_where_it_is_one(
    header: str, after_s: float, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    said = meta_error(429, 130429)
    error = await failure(Say(said.status, said.body, {"Retry-After": header}), http, far_end)
    assert isinstance(error, RateLimited)
    assert error.after == after_s


async def test_a_number_that_is_gone_is_told_from_a_wrong_parameter(
    http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    error = await failure(meta_error(400, 100, error_subcode=33), http, far_end)
    assert error.reason == "number_unknown"


@pytest.mark.parametrize("data", [{"details": "too long"}, "too long"])
async def test_the_details_are_told_in_either_form(data: object, http: aiohttp.ClientSession, far_end: FarEnd) -> None:
    error = await failure(meta_error(400, 100, error_data=data), http, far_end)
    assert "too long" in str(error)


def test_every_wait_is_a_wait_and_every_code_has_a_reason() -> None:
    for code, rule in RULES.items():
        assert rule.after_s > 0 or rule.action != "later", code
        assert rule.after_s == 0 or rule.action in {"later", "channel"}, code
        assert (rule.scope == "job" and rule.growth == 1) or rule.action == "later", code
        assert rule.reason.isidentifier(), code
    assert reason_of(987_654) == "meta_987654"


async def test_a_limit_says_whom_it_is_about_and_grows(http: aiohttp.ClientSession, far_end: FarEnd) -> None:
    pair = await failure(meta_error(429, 131056), http, far_end)
    assert isinstance(pair, RateLimited)
    assert (pair.scope, pair.after, pair.growth) == ("recipient", 1, 4)
    number = await failure(meta_error(429, 130429), http, far_end)
    assert isinstance(number, RateLimited)
    assert number.scope == "account"


async def test_a_code_that_is_worth_one_more_try_says_so(http: aiohttp.ClientSession, far_end: FarEnd) -> None:
    error = await failure(meta_error(400, 135000), http, far_end)
    assert isinstance(error, Temporary)
    assert error.tries == 2
