"""Text that may not be Unicode: broken escapes and bytes leave lone surrogates, which no output file can hold."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape(text: str) -> str:
    r"""The text with each lone surrogate spelled out, as \udc80."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
