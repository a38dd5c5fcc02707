"""The one exception that stands for a mistake of the user's rather than of ours."""


class UserError(Exception):
    """Something the user can mend.

    The message is one sentence: what was wrong, where, and what would be right. The command line prints
    it and exits with code 2; it never becomes a traceback.
    """


def first_line(error: BaseException) -> str:
    """What an exception of another library says, as part of a sentence; its kind where it says nothing, and of an error
    of the system what went wrong alone: the sentence names the file itself.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
