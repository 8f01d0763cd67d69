"""Exceptions as one line of a message or a report."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters; its type if it has none."""
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def describe_error(error: BaseException) -> str:
    """The first line of an error's message, after its type unless it is one of those that samjax raises for photos
    (ValueError, OSError)."""
    text = "".join(str(error).splitlines()[:1])
    if text and isinstance(error, ValueError | OSError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
