"""What to do about each error code of the WhatsApp Cloud API: the code decides, never the HTTP status.

Source: WhatsApp Cloud API, "Error codes" (the page says so itself), with the actions of contracts §1.6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from replyline.channels.http_call import Answer
from replyline.channels.reading import part
from replyline.errors import ChannelDown, JobError, Permanent, RateLimited, Scope, Temporary

Action = Literal["retry", "later", "fail", "channel"]
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What a code means: try again soon, wait, give this message up, or hold everything of the channel.

    `after_s` is the wait of `later`, in seconds, and of `channel` the time before which looking again would be no use. `growth`
    makes each wait in a row so many times as long, for everything in `scope`. `tries` bounds `retry`.
    """

    action: Action
    reason: str
    after_s: float = 0.0
    scope: Scope = "job"
    growth: float = 1.0
    tries: int | None = None


_RETRY = {
    1: Rule("retry", "graph_error", tries=3),
    2: Rule("retry", "graph_unavailable"),
    131000: Rule("retry", "graph_unknown_error", tries=4),
    131016: Rule("retry", "service_unavailable"),
    133004: Rule("retry", "server_unavailable"),
    135000: Rule("retry", "generic_user_error", tries=2),
}
_LATER = {
    4: Rule("later", "app_rate_limit", 60, "account", growth=2),
    17: Rule("later", "user_rate_limit", 60, "account"),
    341: Rule("later", "application_rate_limit", 60, "account"),
    613: Rule("later", "custom_rate_limit", 60, "account"),
    80007: Rule("later", "account_rate_limit", 60, "account"),
    130429: Rule("later", "throughput_reached", 3, "account"),
    131056: Rule("later", "pair_rate_limit", 1, "recipient", growth=4),
    131057: Rule("later", "account_in_maintenance", 60, "account"),
    132069: Rule("later", "flow_throttled", _HOUR_S),
    133015: Rule("later", "number_recently_deleted", 300, "account"),
}
_CHANNEL = {
    "token_invalid": (0, 190),
    "no_permission": (3, 10, *range(200, 300), 131005),
    "number_unknown": (33,),
    "policy_block": (368,),
    "account_locked": (131031,),
    "display_name_not_approved": (131037,),
    "payment_problem": (131042,),
    "number_not_registered": (131045, 133000, 133005, 133006, 133008, 133009, 133010),
    "registration_throttled": (133016,),
    "spam_restriction": (131048,),
    "messaging_limit": (131064,),
    "terms_pending": (134011,),
}
# Before this, looking again cannot help (contracts §1.6: 131048 hours, 133016 72 hours).
_CHANNEL_PAUSE_S = {"spam_restriction": 2 * _HOUR_S, "registration_throttled": 72 * _HOUR_S, "policy_block": _HOUR_S}
_FAIL = {
    "invalid_parameter": (100, 131008, 131009),
    "blocked_by_business": (130403,),
    "experiment_group": (130472,),
    "country_restricted": (130497,),
    "kind_not_supported": (130501, 131051, 131063),
    "sender_is_recipient": (131021,),
    "undeliverable": (131026,),
    "recipient_not_allowed": (131030,),
    "window_closed": (131047,),
    "withheld": (131049,),
    "opted_out": (131050,),
    "media_error": (131052, 131053),
    "recipient_form_not_supported": (131062,),
    "template_error": (132000, 132001, 132005, 132007, 132008, 132012, 132018, 132068),
    "template_disabled": (132015, 132016),
    "identity_changed": (137000,),
}


def _rules() -> dict[int, Rule]:
    rules = {**_RETRY, **_LATER}
    for reason, codes in _CHANNEL.items():
        rules |= {code: Rule("channel", reason, _CHANNEL_PAUSE_S.get(reason, 0.0)) for code in codes}
    for reason, codes in _FAIL.items():
        rules |= {code: Rule("fail", reason) for code in codes}
    return rules


RULES: Mapping[int, Rule] = _rules()


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    is_transient: bool | None = None
    error_subcode: int | None = None
    error_data: object = None


class _ErrorAnswer(msgspec.Struct):
    error: _Error


def reason_of(code: int) -> str:
    """The word operators group by, for a code seen in a status."""
    rule = RULES.get(code)
    return rule.reason if rule else f"meta_{code}"


def is_channel_down(code: int) -> bool:
    """Whether a code seen in a status is about the channel as a whole."""
    rule = RULES.get(code)
    return rule is not None and rule.action == "channel"


def error_from(answer: Answer) -> JobError:
    """The error that an answer other than 2xx stands for.

    Without a readable error the status decides. A server error may have come after the message went out, so its outcome is
    unknown (contracts §1.8).
    """
    read = part(answer.body, _ErrorAnswer)
    if read is None:
        return _by_status(answer, f"Meta answered {answer.status}")
    error = read.error
    said = f"Meta answered {answer.status}, error {error.code}: {_details(error)}"
    rule = RULES.get(error.code)
    if error.code == 100 and error.error_subcode == 33:  # contracts §1.6: the number is gone, not the message wrong
        rule = RULES[33]
    if rule is None:
        if error.is_transient:
            return Temporary(said, reason=f"meta_{error.code}", outcome_unknown=answer.status >= 500)
        return _by_status(answer, said)
    return _by_rule(rule, answer, said)


def _by_rule(rule: Rule, answer: Answer, said: str) -> JobError:
    match rule.action:
        case "retry":
            return Temporary(said, reason=rule.reason, outcome_unknown=answer.status >= 500, tries=rule.tries)
        case "later":
            after_s = answer.retry_after_s or rule.after_s
            return RateLimited(said, after=after_s, reason=rule.reason, scope=rule.scope, growth=rule.growth)
        case "fail":
            return Permanent(said, reason=rule.reason)
        case "channel":
            return ChannelDown(said, reason=rule.reason, retry_after=rule.after_s)


def _by_status(answer: Answer, said: str) -> JobError:
    status = answer.status
    if status == 429:
        return RateLimited(said, after=answer.retry_after_s or 5.0, reason="rate_limited", scope="account")
    if status >= 500 or status in {408, 425}:
        return Temporary(said, reason=f"http_{status}", outcome_unknown=status >= 500)
    return Permanent(said, reason=f"http_{status}")


def _details(error: _Error) -> str:
    details = error.error_data.get("details") if isinstance(error.error_data, dict) else error.error_data
    return f"{error.message} ({details})" if details else error.message
