"""The ways in which a run ends early on purpose."""


class InputError(ValueError):
    """Bad input or configuration: the user can mend it (exit code 2)."""


class StoppedEarly(Exception):
    """The run was asked to stop, has saved its state and can be resumed (exit 3)."""


class DataStalledError(RuntimeError):
    """The images do not come any more; a thread may hang in the file system."""


class ReadingGivenUp(Exception):
    """The images did not come, and the run was asked to stop meanwhile."""


class CheckpointNotSavedError(OSError):
    """The newest state of a run could not be stored."""


class CheckpointUnreadableError(InputError, OSError):
    """The storage has failed while a checkpoint was read: nothing is known of it."""
