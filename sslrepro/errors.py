"""The one exception that people are meant to read: what is wrong, where, what was expected, what to do."""


class UserError(Exception):
    """A mistake in a setting, a path, a file or a name. The command line prints its message alone and exits 2."""
