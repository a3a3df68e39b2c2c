"""What clients may know of how this service is set up: Rucio's sections and options, read from the settings.

Only what is named here is said; nothing here is a secret, a path or an address.
"""

from typing import Any

from arriero.registry.errors import NotFound
from arriero.registry.services.context import Context
from arriero.registry.services.rule_specs import DEFAULT_ACTIVITY
from arriero.registry.store.rses import DEFAULT_ALGORITHM

Section = dict[str, Any]


def get_configuration(context: Context) -> dict[str, Section]:
    """All sections."""
    settings = context.settings
    return {
        "auth": {"session_token_lifetime_s": settings.session_token_lifetime_s},
        "importer": {
            "rse_sync_method": "edit",
            "attr_sync_method": "edit",
            "protocol_sync_method": "edit",
        },
        "limits": {
            "max_body_bytes": settings.max_body_bytes,
            "max_bulk_items": settings.max_bulk_items,
        },
        "policy": {
            "permission": "generic",
            "schema": "generic",
            "lfn2pfn_algorithm_default": DEFAULT_ALGORITHM,
        },
        "rules": {
            "default_activity": DEFAULT_ACTIVITY,
            "stuck_retry_s": settings.stuck_retry_s,
        },
        "transfers": {
            "max_attempts": settings.transfer_max_attempts,
            "backoff_s": settings.transfer_backoff_s,
            "backoff_max_s": settings.transfer_backoff_max_s,
        },
    }


def get_section(context: Context, section: str) -> Section:
    """Options of one section.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    sections = get_configuration(context)
    if section not in sections:
        raise NotFound(
            f"there is no section {section[:80]!r}; there are {', '.join(sections)}",
            rucio_class="ConfigNotFound",
        )
    return sections[section]


def get_option(context: Context, section: str, option: str) -> Any:
    """Value of one option.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    options = get_section(context, section)
    if option not in options:
        raise NotFound(
            f"section {section} has no option {option[:80]!r}; it has {', '.join(options)}",
            rucio_class="ConfigNotFound",
        )
    return options[option]
