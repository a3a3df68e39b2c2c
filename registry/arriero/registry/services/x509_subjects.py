"""Subjects of certificates, as the TLS proxies write them and as identities are named. Pure.

Proxies write RFC 2253 (``CN=Ada,O=Example``) or the older way with slashes (``/O=Example/CN=Ada``), in which grid
identities are known and which is kept here. The older way cannot tell a slash of a value from its own; what could be
read as another's name is refused.
"""

import re

from arriero.registry.errors import InvalidInput

MAX_SUBJECT_CHARACTERS = 2048

_TYPE = r"[A-Za-z][A-Za-z0-9-]*|\d+(?:\.\d+)*"
_ONE = re.compile(rf"({_TYPE})=(.*)", re.DOTALL)
_ANOTHER = re.compile(rf"/(?:{_TYPE})=")
_SLASHED = re.compile(rf"(?:/(?:{_TYPE})=[^/]+(?:/(?!(?:{_TYPE})=)[^/]+)*)+")
_ESCAPED = frozenset(',+"\\<>;=# /')
_PROXY = re.compile(r"(.+)/CN=(?:proxy|limited proxy|\d+)", re.DOTALL)


def subject_of(text: str) -> str:
    """Write a subject the way with slashes, the most significant part first.

    Parameters
    ----------
    text
        In either way.

    Raises
    ------
    InvalidInput
        It is neither, or could be mistaken for another.
    """
    if not 0 < len(text) <= MAX_SUBJECT_CHARACTERS or not text.isprintable():
        raise InvalidInput(f"a subject is one line of at most {MAX_SUBJECT_CHARACTERS} characters")
    subject = text if text.startswith("/") else _from_rfc2253(text)
    if _SLASHED.fullmatch(subject) is None:
        raise InvalidInput("a subject is written /O=Example/CN=Ada or CN=Ada,O=Example")
    return subject


def owner_of(subject: str, issuer: str) -> str:
    """Give the subject that a grid proxy certificate stands for (RFC 3820), or its own for another certificate.

    Parameters
    ----------
    subject, issuer
        Of the certificate, from `subject_of`. A proxy certificate is signed by its owner's: only the issuer proves
        that the last ``CN`` is not part of somebody's name.
    """
    proxy = _PROXY.fullmatch(subject)
    return proxy.group(1) if proxy is not None and proxy.group(1) == issuer else subject


def _from_rfc2253(text: str) -> str:
    parts = [_value(part) for part in _split(text)]
    return "".join(f"/{part}" for part in reversed(parts))


def _split(text: str) -> list[str]:
    parts, start, escaped, quoted = [], 0, False, False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            parts.append(text[start:index])
            start = index + 1
    if escaped or quoted:
        raise InvalidInput("a subject ends in the middle of an escape")
    return [*parts, text[start:]]


def _value(part: str) -> str:
    found = _ONE.fullmatch(part.strip(" "))
    if found is None or not found.group(2) or found.group(2).startswith("#"):
        raise InvalidInput("each part of a subject is TYPE=value")
    value = _unescaped(found.group(2))
    if _ANOTHER.search(value) or not value.isprintable():
        raise InvalidInput("a part of the subject could be read as several")
    return f"{found.group(1)}={value}"


def _unescaped(text: str) -> str:
    out = bytearray()
    index = 0
    while index < len(text):
        character = text[index]
        if character == '"':
            index += 1
        elif character != "\\":
            out += character.encode()
            index += 1
        elif pair := re.match(r"[0-9A-Fa-f]{2}", text[index + 1 : index + 3]):
            out.append(int(pair.group(), 16))
            index += 3
        elif text[index + 1 : index + 2] in _ESCAPED:
            out += text[index + 1].encode()
            index += 2
        else:
            raise InvalidInput("a subject has an escape that is none")
    try:
        return out.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("a subject is UTF-8 below its escapes") from error
