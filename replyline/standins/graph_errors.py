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
    17: (400, "User request limit reached"),
    33: (400, "Parameter value is not valid"),
    100: (400, "Invalid parameter"),
    190: (401, "Access token has expired"),
    200: (403, "API Permission"),
    299: (403, "API Permission"),
    341: (400, "Application limit reached"),
    368: (403, "Temporarily blocked for policies violations"),
    613: (400, "Calls to this API have exceeded the rate limit"),
    80007: (429, "Rate limit issues"),
    130403: (400, "Business blocked this user"),
    130429: (429, "Rate limit hit"),
    130472: (400, "User's number is part of an experiment"),
    130497: (403, "Business account is restricted from messaging users in this country"),
    130501: (400, "Message type is not supported"),
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
    131063: (400, "Marketing templates are disabled"),
    131064: (429, "Messaging limit reached because of misclassified templates"),
    132000: (400, "Template param count mismatch"),
    132001: (404, "Template does not exist"),
    132005: (400, "Template hydrated text too long"),
    132007: (400, "Template format character policy violated"),
    132008: (400, "Template parameter value is not valid"),
    132012: (400, "Template parameter format mismatch"),
    132015: (400, "Template is paused"),
    132016: (400, "Template is disabled"),
    132018: (400, "Template parameter validation failed"),
    132068: (400, "Flow is blocked"),
    132069: (400, "Flow is throttled"),
    133000: (500, "Incomplete deregistration"),
    133004: (503, "Server temporarily unavailable"),
    133005: (400, "Two step verification PIN mismatch"),
    133006: (400, "Phone number re-verification needed"),
    133008: (400, "Too many two step verification PIN guesses"),
    133009: (400, "Two step verification PIN guessed too fast"),
    133010: (400, "Phone number not registered"),
    133015: (400, "Please wait a few minutes before attempting to register this phone number"),
    133016: (400, "Account register deregister rate limit exceeded"),
    134011: (400, "WhatsApp Business Payments terms of service has not been accepted"),
    135000: (400, "Generic user error"),
    137000: (400, "Recipient identity key hash mismatch"),
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
