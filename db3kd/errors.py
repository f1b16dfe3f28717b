"""The errors that db3kd itself raises if a user can correct their cause.

The command line shows such an error in one line, with options instead of arguments. Other errors of
the same built-in classes may be bugs, so it calls them unexpected.
"""

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "Db3kdError",
    "DivergedError",
    "InputError",
    "InputNotFoundError",
    "MissingPackageError",
    "NotAFileError",
    "NotAFolderError",
    "NotWritableError",
    "OutputExistsError",
]


class Db3kdError(Exception):
    """The base class of all errors below, and of `TeacherError`.

    Example:
        >>> try:
        ...     labels = db3kd.label(teacher, images)
        ... except Db3kdError as error:
        ...     print(error)
    """


class _OneArgument(Db3kdError):
    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)  # what pickle passes to the class again
        self.argument = argument
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.argument}: {self.problem}"


class ArgumentError(_OneArgument, ValueError):
    """The value of an argument is invalid.

    Example:
        >>> raise ArgumentError("queries", "expected at least 1, got 0")
        ArgumentError: queries: expected at least 1, got 0

    Args:
        argument: The name of the argument, or what messages call the part of it that is wrong, such
            as `values['size']`.
        problem: What was expected, what came, and what to do.

    Attributes:
        argument: See above.
        problem: See above.
    """


class ArgumentTypeError(_OneArgument, TypeError):
    """An argument has a wrong type.

    Example:
        >>> raise ArgumentTypeError("seed", "expected an integer, got '0'")
        ArgumentTypeError: seed: expected an integer, got '0'

    Args:
        argument: As for `ArgumentError`.
        problem: As for `ArgumentError`.

    Attributes:
        argument: See above.
        problem: See above.
    """


class InputError(Db3kdError, ValueError):
    """Something else that a user provides is invalid: a file, a run folder or a variable.

    Example:
        >>> raise InputError("teacher.toml: expected the key 'classes', got 'class'")
        InputError: teacher.toml: expected the key 'classes', got 'class'
    """


class DivergedError(Db3kdError, FloatingPointError):
    """The loss of a training became infinite or NaN.

    Example:
        >>> raise DivergedError("training: the loss is nan after 10 of 300 steps")
        DivergedError: training: the loss is nan after 10 of 300 steps
    """


class InputNotFoundError(Db3kdError, FileNotFoundError):
    """There is no such file or folder, or a folder lacks what it should contain.

    Example:
        >>> raise InputNotFoundError("data: there is no file train.csv")
        InputNotFoundError: data: there is no file train.csv
    """


class OutputExistsError(Db3kdError, FileExistsError):
    """A file or folder would be overwritten.

    Example:
        >>> raise OutputExistsError("runs/mine: already holds a run; choose another folder")
        OutputExistsError: runs/mine: already holds a run; choose another folder
    """


class NotAFolderError(Db3kdError, NotADirectoryError):
    """A path leads through a file.

    Example:
        >>> raise NotAFolderError("a.txt/run: expected a path in a folder, but a.txt is a file")
        NotAFolderError: a.txt/run: expected a path in a folder, but a.txt is a file
    """


class NotAFileError(Db3kdError, IsADirectoryError):
    """There is a folder at the path of a file that is to be written.

    Example:
        >>> raise NotAFileError("out: expected the path of a file, got the folder runs")
        NotAFileError: out: expected the path of a file, got the folder runs
    """


class NotWritableError(Db3kdError, OSError):
    """Nothing can be written at a path.

    Example:
        >>> raise NotWritableError("out: cannot create runs/mine (Permission denied)")
        NotWritableError: out: cannot create runs/mine (Permission denied)
    """


class MissingPackageError(Db3kdError, ModuleNotFoundError):
    """A package is not installed that an argument, a file or a function needs.

    Example:
        >>> raise MissingPackageError('workers: more than one needs Ray: pip install "db3kd[ray]"')
        MissingPackageError: workers: more than one needs Ray: pip install "db3kd[ray]"
    """
