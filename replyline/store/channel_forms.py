"""What each kind of channel is configured with: which values there are, which it needs, and how they must look."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from replyline.external_ids import PHONE_NUMBER_ID, SESSION, TEMPLATE_NAME, IdKind
from replyline.jobs import ChannelKind


@dataclass(frozen=True, slots=True)
class Form:
    """What a kind of channel is configured with: each value's pattern and its meaning."""

    config: Mapping[str, tuple[str, str]]
    secrets: frozenset[str]
    required: frozenset[str]
    long_secrets: frozenset[str] = frozenset()
    """Those that sign: at least MIN_SIGNING_CHARS."""


_TEXT = r".+"
_NUMBER = r"\d{1,9}(\.\d{1,6})?"
_WHOLE = r"\d{1,9}"
_SIGNS = (r"on|off", "on (default) or off: mark messages read and show typing while the answer is made")
_ORIGIN = r"https?://(\*\.)?[a-zA-Z0-9.-]{1,253}(:\d{1,5})?"
_QUOTE = (r"on|off", "on: the answer quotes the message it is to; off is the default")

FORMS: Mapping[ChannelKind, Form] = {
    # The visitor secret is ours: it signs sessions. The identity secret is the customer's too: it vouches for their users.
    "WIDGET": Form(
        {
            "allowed_origins": (
                rf"\*|{_ORIGIN}( {_ORIGIN}){{0,49}}",
                "sites that may show it, with a space between: https://shop.example https://*.shop.example, or * for all; "
                "only pages of Replyline itself unless set",
            ),
            "identity": (r"optional|required", "required: only users whom the site vouches for may write; optional"),
            "messages_per_month": (
                _WHOLE,
                "at most so many messages of visitors a month (UTC); 0, the default, is no limit",
            ),
            "uploads": (r"on|off", "on (default) or off: visitors may send files"),
            "title": (r".{1,60}", "the name at its top; the channel's name unless set"),
            "subtitle": (r".{1,120}", "the line below the name"),
            "greeting": (r".{1,500}", "what an empty conversation shows"),
            "placeholder": (r".{1,80}", "what the empty input shows"),
            "color": (r"#[0-9a-fA-F]{6}", "its accent colour, as #0f766e"),
            "theme": (r"auto|light|dark", "auto (default) follows the visitor's system"),
            "position": (r"right|left", "the side of the page; right by default"),
        },
        frozenset({"visitor_secret", "identity_secret"}),
        frozenset({"visitor_secret"}),
        frozenset({"visitor_secret", "identity_secret"}),
    ),
    "WHATSAPP_CLOUD": Form(
        {
            "graph_base": (_TEXT, "address of the Graph API, where it is not REPLYLINE_GRAPH_BASE"),
            "graph_version": (r"v\d{1,3}\.\d{1,2}", "as v25.0, where it is not REPLYLINE_GRAPH_VERSION"),
            "waba_id": (r"\d{1,32}", "the WhatsApp Business Account: what Meta says of it counts and is told to you"),
            "phone_number": (r"\+?[\d ]{5,20}", "the number itself, where several of one account are channels"),
            "signs_of_life": _SIGNS,
            "quote_replies": _QUOTE,
            "messages_per_second": (
                _NUMBER,
                "at most so many sends a second; 60 by default, 15 in coexistence, 0 for no limit",
            ),
            "pair_interval_s": (_NUMBER, "seconds between two messages to one person once `pair_burst` is used up; 6"),
            "pair_burst": (r"[1-9]\d{0,5}", "messages to one person that may go at once; 45 by default"),
            "fallback_template": (TEMPLATE_NAME.pattern, "approved template sent when the 24 hours are over"),
            "fallback_language": (r"[a-zA-Z_]{2,10}", "its language; en_US by default"),
            "fallback_parameter": (r"none|text", "text: the answer goes into its first place; none is the default"),
            "on_unknown": (r"resend|fail", "a send of unknown outcome, after the wait for a status; resend by default"),
        },
        frozenset({"app_secret", "verify_token", "access_token"}),
        frozenset({"app_secret", "verify_token", "access_token"}),
        frozenset({"app_secret"}),
    ),
    "WHATSAPP_QR": Form(
        {
            "gateway_url": (_TEXT, "address of the QR gateway"),
            "signs_of_life": _SIGNS,
            "quote_replies": _QUOTE,
            "messages_per_minute": (
                _NUMBER,
                "at most so many sends a minute; 20 by default, 0 for no limit (bans are likely)",
            ),
            "messages_per_day": (_WHOLE, "at most so many sends a day (UTC); 0, the default, is no limit"),
        },
        frozenset({"secret", "gateway_token"}),
        frozenset({"gateway_url", "secret"}),
        frozenset({"secret"}),
    ),
}


MIN_SIGNING_CHARS = 32
"""As many bytes as the hash has (RFC 7518 §3.2)."""


class ChannelRefused(Exception):
    """The channel cannot be so; the message says what is missing or unknown."""


class ChannelTaken(ChannelRefused):
    """The account is already connected as another channel."""


def check_names(kind: ChannelKind, config: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """Check every value that is given. Raises ChannelRefused: one is unknown or does not fit."""
    form = FORMS[kind]
    for part, given, known in (("config", config, form.config.keys()), ("secrets", secrets, form.secrets)):
        unknown = sorted(given.keys() - known)
        if unknown:
            raise ChannelRefused(
                f"{kind} has no {part} {', '.join(unknown)}; known: {', '.join(sorted(known)) or 'none'}"
            )

    for name in sorted(form.long_secrets & secrets.keys()):
        if 0 < len(secrets[name]) < MIN_SIGNING_CHARS:
            raise ChannelRefused(f"secret {name} must have at least {MIN_SIGNING_CHARS} characters")
    for name, value in config.items():
        pattern, meaning = form.config[name]
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ChannelRefused(f"config {name} cannot be {value[:60]!r}: {meaning}")


def check_complete(kind: ChannelKind, config: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """Check that nothing is missing. Raises ChannelRefused: something is."""
    given = {name for name, value in (*config.items(), *secrets.items()) if value}
    missing = sorted(FORMS[kind].required - given)
    if missing:
        raise ChannelRefused(f"{kind} needs {', '.join(missing)}")


def check_external_id(kind: ChannelKind, external_id: str) -> None:
    """Check that a number or a session looks like one.

    Raises:
        ChannelRefused: it does not, or it is a site key, which is made here.
    """
    wanted = _EXTERNAL_IDS.get(kind)
    if wanted is None:
        raise ChannelRefused("a widget's external_id, its site key, is made here and never changes")
    try:
        wanted.check(external_id)
    except ValueError as error:
        raise ChannelRefused(f"external_id: {error}") from error


_EXTERNAL_IDS: Mapping[ChannelKind, IdKind] = {"WHATSAPP_CLOUD": PHONE_NUMBER_ID, "WHATSAPP_QR": SESSION}
