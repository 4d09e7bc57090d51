"""Which refusals concern the whole account: the key, the workspace, the organization or its billing.

The API would refuse every other body for the same reason, so nothing else is sent until the user has resolved it.
The classification rests on, from certain to less certain:

1. the code, `error.details.error_code`, which is stable and names the cause;
2. the status or the type of the error, which a gateway may have given instead of the API: its refusal stops every
   body as well;
3. known texts, because the API has no code for some causes.

Any other refusal may be about the body. If a second body of a run is refused in the same words, and they are not
about single requests, the rest of the run stops too: see `core/batches/run_answers.py`.
"""

from __future__ import annotations

import re

_CODES = {
    "claude_code_key_creator_not_member": "Use a key of another workspace, or of a member of the organization",
    "claude_code_version_too_old": "Use a key that is not restricted to Claude Code",
    "cmek_key_disabled": "Enable the workspace's customer-managed encryption key again",
    "cmek_key_network_blocked": (
        "Let the API reach the workspace's customer-managed encryption key: the network rules of the key "
        "management service block it"
    ),
    "contract_spend_limit_reached": "Raise the spend limit of the organization's contract",
    "enforced_spend_limit_reached": "Raise the organization's usage tier, or wait for the next month",
    "linked_organization_billing_unavailable": "Check the billing of the organization of the user profile",
    "linked_organization_spend_limit_reached": "Raise the spend limit of the organization of the user profile",
    "organization_on_hold": "Ask the provider's support: it has disabled the organization",
    "organization_type_not_supported": "Use a key of an organization that may create batches",
    "parent_organization_required": "Use a key of an organization that may create batches",
    "user_profile_not_found": "Check the header anthropic-user-profile-id",
    "user_profile_required": "Set the header anthropic-user-profile-id",
    "workspace_human_review_disabled": "Use a key of a workspace with Human Review on, or turn it on",
}
# What the user can do about each code that concerns the whole account.

PASSING_ACCOUNT_CODES = {
    "cmek_context_unavailable": "The workspace's encryption settings cannot be read now",
    "cmek_key_unreachable": "Check that the workspace's customer-managed encryption key is available",
}
"""Codes with which the API refuses every body for a while, although their status alone leaves the outcome open."""

_STATUSES = {
    401: "Check the API key",
    402: "Check the billing of the organization",
    403: "Check what the key and its workspace may do, and from which addresses",
}
_TYPES = frozenset({"authentication_error", "billing_error", "permission_error"})
# Some causes have no code: too little credit, a spend limit of the user's own, a disabled organization.
_TEXTS = (
    "credit balance is too low",
    "spend limit",
    "usage limits",
    "organization has been disabled",
    "workspace has been disabled",
    "workspace is archived",
    "workspace has been archived",
)
_TEXT_STATUSES = (400, 429)
_REQUEST = re.compile(r"\brequests?\W{0,2}\d|^requests\b|custom_id|\bjson\b", re.IGNORECASE)


def concerns_account(status: int, type_: str, code: str, message: str) -> bool:
    """Whether the API would refuse every other body for the same reason, until a user resolves it.

    Args:
        status: The HTTP status, from 400 to 499.
        type_: The type of the error; "" if the body had none.
        code: The code of the error; "" if the body had none.
        message: The text of the error.
    """
    if code in _CODES or status in _STATUSES or type_ in _TYPES:
        return True
    lowered = message.lower()
    return status in _TEXT_STATUSES and any(text in lowered for text in _TEXTS)


def account_remedy(status: int, code: str) -> str:
    """Return what a user can do about a refusal of the whole account, as a clause; "" if unknown.

    Args:
        status: The HTTP status.
        code: The code of the error; "" if the body had none.
    """
    return _CODES.get(code) or PASSING_ACCOUNT_CODES.get(code) or _STATUSES.get(status, "")


def names_requests(message: str) -> bool:
    """Whether the text of a refusal is about requests of the body, or its syntax: another may be accepted."""
    return _REQUEST.search(message) is not None
