"""What Meta says of an account: whose it is, what it means for sending, and what people want."""

import time
from dataclasses import replace

import msgspec
import pytest

from replyline.channels import CHANNELS, Callback
from replyline.jobs import Identity
from replyline.notices import Notice, Preference
from tests.channels.graph import account_at, change

BUSINESS = "102290129340398"


def said(field: str, value: object, *, entry: object = BUSINESS, at: int = 1_764_000_000, **config: str) -> Callback:
    """What our account hears of a change that names no number."""
    account = account_at()
    account = replace(account, config={**account.config, "waba_id": BUSINESS, **config})
    body = {"entry": [{"id": entry, "time": at, "changes": [{"field": field, "value": value}]}]}
    return CHANNELS["WHATSAPP_CLOUD"].parse(account, msgspec.json.encode(body))


def one(field: str, value: object, **config: str) -> Notice:
    (notice,) = said(field, value, entry=BUSINESS, at=1, **config).notices
    return notice


@pytest.mark.parametrize(
    ("value", "down", "lifts"),
    [
        ({"event": "ACCOUNT_DELETED"}, "account_deleted", set()),
        ({"event": "ACCOUNT_OFFBOARDED"}, "account_offboarded", set()),
        ({"event": "ACCOUNT_RECONNECTED"}, None, {"account_offboarded"}),
        ({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "DISABLE"}}, "account_disabled", set()),
        (
            {"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "REINSTATE"}},
            None,
            {"account_disabled", "account_restricted"},
        ),
        ({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "SCHEDULE_FOR_DISABLE"}}, None, set()),
        ({"event": "DISABLED_UPDATE", "ban_info": None}, None, set()),
        (
            {
                "event": "ACCOUNT_RESTRICTION",
                "restriction_info": [{"restriction_type": "RESTRICTED_CUSTOMER_INITIATED_MESSAGING"}],
            },
            "account_restricted",
            set(),
        ),
        (
            {
                "event": "ACCOUNT_RESTRICTION",
                "restriction_info": [
                    {"restriction_type": "RESTRICTED_CUSTOMER_INITIATED_MESSAGING", "expiration": 1_641_330_498}
                ],
            },
            None,
            {"account_restricted"},
        ),
        (
            {
                "event": "ACCOUNT_RESTRICTION",
                "restriction_info": [{"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING"}],
            },
            None,
            {"account_restricted"},
        ),
        ({"event": "ACCOUNT_RESTRICTION", "restriction_info": []}, None, {"account_restricted"}),
        ({"event": "ACCOUNT_VIOLATION", "violation_info": {"violation_type": "SPAM"}}, None, set()),
        ({"event": "VERIFIED_ACCOUNT"}, None, set()),
        ({"event": None}, None, set()),
    ],
)
def test_a_ban_or_a_restriction_of_answers_stops_the_channel_and_its_end_lets_it_go_on(
    value: dict[str, object], down: str | None, lifts: set[str]
) -> None:
    notice = one("account_update", value)
    assert (notice.event, notice.down, set(notice.lifts)) == ("channel.account_changed", down, lifts)
    assert notice.data == {"change": "account_update", "event": value["event"], "info": value}


def test_a_restriction_is_not_looked_at_before_it_ends() -> None:
    until = time.time() + 3600
    restriction = {"restriction_type": "RESTRICTED_CUSTOMER_INITIATED_MESSAGING", "expiration": until}
    notice = one("account_update", {"event": "ACCOUNT_RESTRICTION", "restriction_info": [restriction]})
    assert 3500 < notice.down_for_s <= 3600


def test_the_quality_of_the_number_is_told() -> None:
    value = {"display_phone_number": "15550783881", "event": "FLAGGED", "current_limit": "TIER_10K"}
    notice = one("phone_number_quality_update", value)
    assert (notice.event, notice.data) == (
        "channel.quality_changed",
        {"event": "FLAGGED", "limit": "TIER_10K", "old_limit": None, "phone_number": "15550783881"},
    )


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        (
            "message_template_status_update",
            {"event": "REJECTED", "reason": "INVALID_FORMAT", "rejection_info": {"reason": "side by side"}},
            {"change": "status", "status": "REJECTED", "reason": "INVALID_FORMAT: side by side"},
        ),
        (
            "message_template_status_update",
            {"event": "APPROVED", "reason": "NONE", "message_template_category": "UTILITY"},
            {"change": "status", "status": "APPROVED", "category": "UTILITY"},
        ),
        (
            "message_template_status_update",
            {"previous_quality_score": "GREEN", "new_quality_score": "YELLOW"},
            {"change": "quality", "quality": "YELLOW"},
        ),
        ("message_template_quality_update", {"new_quality_score": "RED"}, {"change": "quality", "quality": "RED"}),
        ("template_category_update", {"new_category": "MARKETING"}, {"change": "category", "category": "MARKETING"}),
        ("message_template_components_update", {}, {"change": "components"}),
    ],
)
def test_what_becomes_of_a_template_is_told(field: str, value: dict[str, object], told: dict[str, object]) -> None:
    named = {"message_template_id": 168, "message_template_name": "please_write", "message_template_language": "de"}
    notice = one(field, value | named, fallback_template="please_write")
    nothing = dict.fromkeys(("status", "quality", "category", "reason"))
    about = {"template_id": "168", "template_name": "please_write", "language": "de", "is_fallback": True}
    assert (notice.event, notice.data) == ("channel.template_status_changed", {**nothing, **about, **told})


@pytest.mark.parametrize(
    "field", ["phone_number_name_update", "account_review_update", "account_alerts", "business_capability_update", "security"]
)  # fmt: skip
def test_other_news_of_the_account_is_told_as_it_came(field: str) -> None:
    notice = one(field, {"decision": "APPROVED", "x": {"y": "a\x00b"}})
    assert (notice.event, notice.data) == (
        "channel.account_changed",
        {"change": field, "event": "APPROVED", "info": {"decision": "APPROVED", "x": {"y": "ab"}}},
    )


@pytest.mark.parametrize("field", ["flows", "partner_solutions", "group_lifecycle_update", "something_new"])
def test_a_field_that_nothing_acts_on_is_kept_as_it_came(field: str) -> None:
    callback = said(field, {"event": "X"})
    assert (callback.notices, len(callback.unread)) == ((), 1)
    assert callback.unread[0].own


def test_what_is_said_of_another_business_tells_us_nothing() -> None:
    callback = said("account_update", {"event": "ACCOUNT_DELETED"}, entry="999")
    assert (callback.notices, callback.unread, callback.ignored) == ((), (), 0)
    assert callback.businesses == {"999": 1}


def test_a_change_without_a_field_is_not_ours_because_it_came_to_us() -> None:
    """Whatever its shape, what is said of another customer's number or account is nobody else's to read."""
    text = {"from": "1650", "id": "wamid.A", "timestamp": "1", "type": "text", "text": {"body": "Hi"}}
    theirs = [{"value": change(number="999", messages=[text])["value"]}, {"field": None, "value": {"x": 1}}]
    body = {"entry": [{"id": "999", "changes": theirs}]}
    account = replace(account_at(), config={**account_at().config, "waba_id": BUSINESS})
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account, msgspec.json.encode(body))
    assert (callback.messages, callback.unread) == ((), ())
    assert (callback.elsewhere, callback.businesses) == ({"999": 1}, {"999": 1})


def test_a_partners_entry_is_about_the_business_that_it_names() -> None:
    ours = {"event": "PARTNER_REMOVED", "waba_info": {"waba_id": BUSINESS}}
    assert said("account_update", ours, entry="2949482758682047").notices
    theirs = {"event": "PARTNER_REMOVED", "waba_info": {"waba_id": "999"}}
    assert said("account_update", theirs, entry=BUSINESS).notices == ()


def test_a_channel_that_does_not_say_its_business_is_told_nothing() -> None:
    body = {
        "entry": [{"id": BUSINESS, "changes": [{"field": "account_update", "value": {"event": "ACCOUNT_DELETED"}}]}]
    }
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), msgspec.json.encode(body))
    assert (callback.notices, callback.unread, callback.ignored) == ((), (), 1)


def test_what_is_said_of_another_number_of_the_business_tells_us_nothing() -> None:
    value = {"display_phone_number": "15550783881", "event": "FLAGGED"}
    assert said("phone_number_quality_update", value, phone_number="+1 555 0783881").notices
    assert said("phone_number_quality_update", value, phone_number="+1 555 0000000").notices == ()
    assert said("phone_number_quality_update", {"event": "FLAGGED"}, phone_number="+1 555 0000000").notices


def test_the_same_thing_happening_again_is_no_repeat() -> None:
    value = {"event": "FLAGGED", "current_limit": "TIER_10K"}
    first, again = (said("phone_number_quality_update", value, at=at).notices[0].digest for at in (1, 2))
    assert first != again
    assert first == said("phone_number_quality_update", value, at=1).notices[0].digest


@pytest.mark.parametrize(
    "value", [None, 7, [], "text", {}, {"event": {}}, {"event": "ACCOUNT_RESTRICTION", "restriction_info": 7}]
)
def test_news_of_any_shape_hides_no_other_change(value: object) -> None:
    text = {"from": "1650", "id": "wamid.A", "timestamp": "1", "type": "text", "text": {"body": "Hi"}}
    body = {
        "entry": [{"id": BUSINESS, "changes": [{"field": "account_update", "value": value}, change(messages=[text])]}]
    }
    account = account_at()
    account = replace(account, config={**account.config, "waba_id": BUSINESS})
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account, msgspec.json.encode(body))
    assert [found.external_id for found in callback.messages] == ["wamid.A"]
    assert len(callback.notices) == 1


def wishes(*preferences: object, contacts: object = None) -> Callback:
    body = {"entry": [{"changes": [change(field="user_preferences", user_preferences=preferences, contacts=contacts)]}]}
    return CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), msgspec.json.encode(body))


def test_who_stops_marketing_messages_is_known_by_every_name() -> None:
    wish = {"wa_id": "1650", "category": "marketing_messages", "value": "stop", "timestamp": 1764000000, "detail": "d"}
    (found,) = wishes(wish, contacts=[{"wa_id": "1650", "user_id": "US.1"}]).preferences
    assert found == Preference((Identity("bsuid", "US.1"), Identity("wa_id", "1650")), True, 1764000000.0)
    (found,) = wishes(wish | {"value": "resume", "timestamp": "odd"}).preferences
    assert found == Preference((Identity("wa_id", "1650"),), False, None)


@pytest.mark.parametrize(
    "wish", [None, {}, {"wa_id": "1650", "category": "x", "value": "stop"}, {"category": "marketing_messages", "value": "stop"}]
)  # fmt: skip
def test_a_wish_that_is_not_known_is_kept_as_it_came(wish: object) -> None:
    callback = wishes(wish)
    assert (callback.preferences, len(callback.unread)) == ((), 1)
