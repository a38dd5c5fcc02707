"""The one exception that stands for a mistake of the user's rather than of ours."""


class UserError(Exception):
    """Something the user can mend.

    The message is one sentence: what was wrong, where, and what would be right. The command line prints
    it and exits with code 2; it never becomes a traceback.
    """
