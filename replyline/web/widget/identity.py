"""Users whom a site vouches for: by an HMAC over their id, or, better, by a token that is soon worth nothing."""

import hashlib
import hmac
from collections.abc import Mapping

import jwt

from replyline import metrics
from replyline.web.problems import Problem

LONGEST_TOKEN_S = 600
"""A site's token may be good for at most so long: who finds one later cannot use it (contracts §4.2)."""
RENEWED_FOR_S = 86_400
"""How long after its end it still renews the sessions of a page that began with it."""
_LEEWAY_S = 30
_MOST_CHARS = 512


def by_hash(secret: str | None, user_id: str, given: str) -> str:
    """The user's id, if `given` is the hex HMAC-SHA256 of it under the site's `identity_secret` (as Chatwoot has it).

    Raises:
        Problem: 403, it is not.
    """
    if not secret:
        raise _refused("this widget has no identity_secret: set one before you vouch for users")
    wanted = hmac.new(secret.encode(), user_id.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(given.lower().encode(), wanted.encode()):
        raise _refused("user.hash is not the HMAC-SHA256 of user.id under the widget's identity_secret")
    return user_id


def by_token(secret: str | None, site_key: str, token: str, *, known_as: str | None, now_s: float) -> str:
    """The user's id in a token that the site signed (HS256): `sub`, `aud` = the site key, `exp` at most 10 minutes ahead.

    A page whose session is over shows the token that it began with. It may be up to RENEWED_FOR_S too old where the page also has
    the visitor token of that same user (`known_as`): the two together were given to nobody else.
    `now_s` is Redis' time, in seconds since 1970: the answer is the same at every process, whatever its machine's clock says.

    Raises:
        Problem: 403, it is forged, expired, another site's, or good for too long.
    """
    if not secret:
        raise _refused("this widget has no identity_secret: set one before you vouch for users")
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            audience=site_key,
            # Its times are looked at below, by the clock that all processes have in common.
            options={"require": ["sub", "exp", "aud"], "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
    except jwt.InvalidTokenError as error:
        raise _refused(f"user_token is not good: {error}") from error
    user_id = claims["sub"]
    if not isinstance(user_id, str) or not 0 < len(user_id) <= _MOST_CHARS or "\0" in user_id:
        raise _refused(f"user_token's sub must be a text of 1 to {_MOST_CHARS} characters")
    left_s = _time(claims, "exp") - now_s
    if not left_s <= LONGEST_TOKEN_S + _LEEWAY_S:
        raise _refused(f"user_token must expire within {LONGEST_TOKEN_S} seconds")
    if left_s <= -_LEEWAY_S and (user_id != known_as or left_s <= -RENEWED_FOR_S):
        raise _refused("user_token is not good: it has expired")
    for name in ("iat", "nbf"):
        if name in claims and not _time(claims, name) <= now_s + _LEEWAY_S:
            raise _refused(f"user_token is not good yet: its {name} is to come")
    return user_id


def required() -> Problem:
    """The answer to a page that vouches for nobody where it must."""
    metrics.widget_refusals_total.labels("identity").inc()
    return Problem(403, "identity_required", "this widget is for users whom its site vouches for")


def _time(claims: Mapping[str, object], name: str) -> float:
    moment = claims[name]
    if not isinstance(moment, int | float):
        raise _refused(f"user_token's {name} must be a number")
    return moment


def _refused(detail: str) -> Problem:
    metrics.widget_refusals_total.labels("identity").inc()
    return Problem(403, "identity_invalid", detail)
