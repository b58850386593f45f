"""What vtp raises. A message says what was wrong, what was expected and what to do::

    VtpError            exit code 1: a run failed
    ├── UserError       exit code 2: the user can fix it by changing the command, the configuration or a file
    │   ├── ConfigError     a key, value or option of the configuration
    │   ├── PluginError     a plugin that is missing, broken, or collides with another
    │   └── DataError       annotation files, media folders, checkpoints given by the user
    │       └── SampleTypeError     a Sample or MediaRef that is made of wrong types; a TypeError too
    └── RunError        something went wrong while running: NaN loss, too many bad samples, a full disk
        ├── ComponentError  an exception out of the code of a plugin
        └── LoadingError    an exception that is none of these, where samples are read or decoded

`vtp` prints the message in one line without a traceback; everything that is not a VtpError is a bug and keeps its
traceback, unless it came out of a plugin's code, or while samples were loaded: then it is a ComponentError or a
LoadingError, and the traceback is in run.log.
"""

__all__ = [
    "ComponentError",
    "ConfigError",
    "DataError",
    "LoadingError",
    "PluginError",
    "RunError",
    "SampleTypeError",
    "UserError",
    "VtpError",
]


class VtpError(Exception):
    """Base of all errors that vtp raises on purpose."""

    exit_code = 1


class UserError(VtpError):
    """The user can repair this by changing what they gave us."""

    exit_code = 2


class ConfigError(UserError):
    """A wrong key, value or option in the configuration."""


class PluginError(UserError):
    """A plugin is missing, broken, incompatible, or offers a name that is already taken."""


class DataError(UserError):
    """A file or folder that the user named is missing, unreadable or not in the expected format."""


class SampleTypeError(DataError, TypeError):
    """A data set made a sample of wrong types: a fault of its code, never a file that is not there."""


class RunError(VtpError):
    """A run that started properly cannot go on."""


class ComponentError(RunError):
    """The code of a plugin raised something; which component, which plugin, and what."""


class LoadingError(RunError):
    """Something that nobody expects was raised for a sample: in a loader worker it must end the run, not the worker."""
