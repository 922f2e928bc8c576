"""Errors of Meta's Graph API, in the form and with the HTTP status that Meta gives them."""

import secrets

from replyline.standins.server import Reply

# WhatsApp Cloud API, "Error codes"; the HTTP status as Meta's table had it before 2026, where throttling was seen as 400 too.
_ERRORS: dict[int, tuple[int, str]] = {
    0: (401, "AuthException"),
    1: (400, "API Unknown"),
    2: (503, "API Service"),
    3: (500, "API Method"),
    4: (429, "API Too Many Calls"),
    10: (403, "API Permission Denied"),
    33: (400, "Parameter value is not valid"),
    100: (400, "Invalid parameter"),
    190: (401, "Access token has expired"),
    200: (403, "API Permission"),
    368: (403, "Temporarily blocked for policies violations"),
    80007: (429, "Rate limit issues"),
    130403: (400, "Business blocked this user"),
    130429: (429, "Rate limit hit"),
    130472: (400, "User's number is part of an experiment"),
    130497: (403, "Business account is restricted from messaging users in this country"),
    131000: (500, "Something went wrong"),
    131005: (403, "Access denied"),
    131008: (400, "Required parameter is missing"),
    131009: (400, "Parameter value is not valid"),
    131016: (503, "Service unavailable"),
    131021: (400, "Recipient cannot be sender"),
    131026: (400, "Message undeliverable"),
    131030: (400, "Recipient phone number not in allowed list"),
    131031: (403, "Account has been locked"),
    131037: (400, "Display name is not approved"),
    131042: (400, "Business eligibility payment issue"),
    131045: (500, "Incorrect certificate"),
    131047: (400, "Re-engagement message"),
    131048: (429, "Spam rate limit hit"),
    131049: (400, "Meta chose not to deliver"),
    131050: (400, "User has stopped marketing messages"),
    131051: (400, "Unsupported message type"),
    131052: (400, "Media download error"),
    131053: (400, "Media upload error"),
    131056: (429, "(Business Account, Consumer Account) pair rate limit hit"),
    131057: (400, "Account in maintenance mode"),
    131062: (400, "Recipient is not supported for this message"),
    133004: (503, "Server temporarily unavailable"),
    133010: (400, "Phone number not registered"),
    135000: (400, "Generic user error"),
}
_BY_STATUS = {401: 190, 403: 10, 429: 130429}


def graph_error(code: int, details: str, *, subcode: int | None = None, status: int | None = None) -> Reply:
    """An error answer; a code that is not in the table has status 400 if none is given."""
    usual, title = _ERRORS.get(code, (400, "Error"))
    error: dict[str, object] = {
        "message": f"(#{code}) {title}",
        "type": "OAuthException",
        "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": details},
        "fbtrace_id": secrets.token_urlsafe(16),
    }
    if subcode is not None:
        error["error_subcode"] = subcode
    if code == 2:
        error["is_transient"] = True
    return Reply(usual if status is None else status, {"error": error})


def unknown_object(object_id: str, method: str) -> Reply:
    """The answer for an object that is not there, or is another's: Meta does not say which."""
    return graph_error(
        100,
        f"Unsupported {method.lower()} request. Object with ID '{object_id}' does not exist, cannot be loaded due to "
        "missing permissions, or does not support this operation",
        subcode=33,
    )


def code_for(status: int) -> int:
    """The code that goes with an HTTP status where a fault names none."""
    return _BY_STATUS.get(status, 131000 if status >= 500 else 100)


def failure(code: int) -> dict[str, object]:
    """One element of `errors` in a status `failed`."""
    title = _ERRORS.get(code, (400, "Error"))[1]
    return {
        "code": code,
        "title": title,
        "message": title,
        "error_data": {"details": title},
        "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
    }
