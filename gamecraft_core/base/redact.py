"""Taking secrets out of text before anybody stores or shows it.

Every FramelaneError, log line, refused row and stored configuration passes through here: what reaches them may quote a
URI, a client library's message or a cell of somebody's manifest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_GONE = "***"

#: Environment variables whose values are never shown. Shorter values are placeholders, and common words.
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_LEAST_LENGTH = 8

_NAMED = re.compile(
    r"""(?ix) ((?: aws_?secret_?access_?key | aws_?session_?token | aws_?access_?key_?id | authorization
    | x-amz-(?:signature|credential|security-token) | signature | password | secret )
    ['"]? \s* [=:] \s* ['"]? (?:aws4-hmac-sha256\s | bearer\s | basic\s)? ) [^\s'",;&)]+"""
)
_PATTERNS = (
    # scheme://user:password@host; one slash is what becomes of two in a path
    (re.compile(r"(\w:/{1,2})[^/\s'\"<>]*@"), r"\1"),
    # the same with a slash in the password, as keys of AWS have it; host:port/path@version is not meant
    (re.compile(r"(\w:/{1,2})[^/\s:@'\"<>]+:(?!\d+/)[^\s@'\"<>]*@"), r"\1"),
    # the query of a URI: presigned ones carry keys, tokens and signatures there
    (re.compile(r"(\w:/{1,2}(?:[^\s?:'\"<>]|:(?!/))*)\?[^\s'\"<>]*"), rf"\1?{_GONE}"),
    (re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{16}"), _GONE),
    (_NAMED, rf"\1{_GONE}"),
)


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``text`` without credentials in URIs, keys by their form or name, and the values ``environment`` keeps secret."""
    for name in _SECRET_VARIABLES:
        value = environment.get(name, "")
        if len(value) >= _LEAST_LENGTH and value in text:
            text = text.replace(value, _GONE)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
