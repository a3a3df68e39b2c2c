"""Names that somebody sends who means no good, and how to tell that one of them was believed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.thorough import SHARE

CANARY = Path("/tmp/arriero-hostile-canary")
"""A file that some of the names try to make."""

BY_KIND: dict[str, tuple[str, ...]] = {
    "sql": (
        "'; DROP TABLE dids; --",
        '"; DELETE FROM accounts; --',
        "' OR '1'='1",
        "x') UNION SELECT secret_hash FROM identities --",
        f"'; COPY (SELECT 1) TO PROGRAM 'touch {CANARY}'; --",
        "1; SELECT pg_sleep(5)",
        "'||(SELECT token_hash FROM tokens LIMIT 1)||'",
        "$1",
        "%(name)s",
        ":name",
        "'::jsonb",
        "\\'; ATTACH DATABASE '/tmp/arriero-hostile-canary' AS x; --",
    ),
    "script": (
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "javascript:alert(1)",
        "'-alert(1)-'",
        "</textarea><svg/onload=alert(1)>",
        "{{7*7}}",
        "{% include '/etc/passwd' %}",
        "${7*7}",
        "#{7*7}",
    ),
    "command": (
        f"$(touch {CANARY})",
        f"`touch {CANARY}`",
        f"| touch {CANARY}",
        f"; touch {CANARY} #",
        "!!python/object:os",
    ),
    "path": (
        "../../../../etc/passwd",
        "..\\..\\windows",
        "%2e%2e%2fetc",
        "/etc/passwd",
        "a/../../b",
        "./a",
        "a//b",
        "~root",
        "file:///etc/passwd",
        "..;/",
        "a/.",
        "con",
    ),
    "address": (
        "http://169.254.169.254/latest",
        "http://[::1]:22/",
        "gopher://x",
        "\\\\host\\share",
        "//host/x",
    ),
    "direction": ("\u202egnp.exe", "\u2066x\u2069", "\u200f", "a\u200bb", "\ufeffa", "\u00ad"),
    "combining": (
        "a" + "\u0301" * 200,
        "e\u0301",
        "\u1112\u1161\u11ab",
        "Z" + "\u0321\u0311" * 50,
        "\u0130",
        "\ufb01",
    ),
    "plane": (
        "\U0001f52d",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0010ffff",
        "\ufffe",
        "\u2028",
        "\u0085",
        "\x1b[31m",
    ),
    "lookalike": (
        "r\u043e\u043et",
        "\uff52\uff4f\uff4f\uff54",
        "ro\u03bft",
        "her\u0455",
        "\u2024\u2024/",
        "\uff0e\uff0e\uff0f",
    ),
    "long": ("x" * 501, "x" * 5_000, "x" * 100_000, "\u20ac" * 501, "a/" * 400 + "a", "-" * 300, "%" * 600),
    "formula": ("=cmd|'/C calc'!A1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'),
    "header": (
        "a\r\nX-Injected: 1",
        "a\nSet-Cookie: x=1",
        "a\r\n\r\n<html>",
        "a\u560a\u560dX-Injected: 1",
        "\x7f",
        "\x01",
    ),
    "pattern": ("%", "_", "*", "\\", "%_%\\", "?", "[a-z]", ".*", "(a+)+$", "*" * 400, "%25%25", "\\*"),
    "word": (
        "null",
        "None",
        "NaN",
        "true",
        "undefined",
        "__proto__",
        "constructor",
        "__class__",
        "0",
        "-1",
        "1e400",
        "0x1f",
    ),
    "blank": ("", " ", "  a  ", "\t", "\n", "\u00a0", "\u3000", "a ", " a"),
    "expression": ("(" * 500, "a|" * 300 + "a", "a=b=c", "|", "*\\*", "a<", "MINE&", "x=*", "\u2216"),
}
"""By what they try; none holds a null character or half a character, which `test_hostile_input` sends."""

NUMBERS = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e400",
    b"-1e400",
    b"1e-400",
    b"9" * 400,
    b"-0",
    b"9007199254740993",
    b"18446744073709551616",
    b"0.1e1",
    b"1e30",
    b"1.7976931348623157e308",
)
"""Numbers, as JSON or what some take for it, that do not come out of a computer as they went in."""

NULL_CHARACTERS = (
    rb'"a\u0000b"',
    b'"a\x00b"',
    rb'"\ud800"',
    rb'"\udc00\ud800"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xc0\xaf"',
)
"""Texts that are none, as JSON."""

LEAKS = re.compile(
    rb"(?i)traceback|sqlalchemy|psycopg|sqlite3|pydantic_core|site-packages|\.py\b|/work/|/usr/|/tests?/|\bselect\s.+\sfrom\b|"
    rb"insert into|syntax error at|argon2|secret_hash\b.*=|no such (table|column)|relation \"|root:x:0"
)
"""What an answer tells that is nobody's business. A name that was sent is taken out before it is looked for."""


def of_place(number: int, *, half: int) -> list[tuple[str, str]]:
    """One name of some of the kinds, others at the next place: at length the two halves together send each kind everywhere."""
    return [
        (kind, names[number % len(names)])
        for position, (kind, names) in enumerate(BY_KIND.items())
        if (number + position) % (2 * SHARE) == half
    ]


def leaked(content: bytes, *sent: str) -> bytes | None:
    """What an answer tells that it should not, None if nothing.

    Parameters
    ----------
    sent
        What was in the call: that it is named in the answer is no leak.
    """
    for text in sent:
        for way in (text, json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text), ascii(text)):
            content = _without(content, way.strip("'\"").encode("utf-8", "surrogatepass"))
    found = LEAKS.search(content)
    return None if found is None else found.group()


def _without(content: bytes, text: bytes) -> bytes:
    """Take a text out, or as much of its beginning as was kept."""
    for length in range(min(len(text), 600), 11, -1):
        if text[:length] in content:
            return content.replace(text[:length], b"")
    return content
