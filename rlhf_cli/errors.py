"""Every way a run can end badly, each with its exit code.

RlhfError                 1   a bug of ours, when raised as itself
+- UsageError             2   the command line
+- DataError             65   rows or files that cannot be used
|  +- CheckpointError    65   a checkpoint that does not verify
+- MissingInputError     66   a file, model or run that is not there
+- UnavailableError      69   a device, network or service that does not answer
+- ResourceError         71   out of memory or disk
+- RunConflictError      73   the run directory belongs to something else
+- Preempted             75   interrupted, checkpoint saved: run the same command again
+- DivergedError         76   NaN, or a guard that says the run is lost
+- ConfigError           78   the YAML file or `--set`
"""


class RlhfError(Exception):
    """Say what went wrong, where, and what to do about it.

    `where` is `file:line[:col]` or a configuration key; `fix` is one imperative sentence. A relayed error came up
    in another process of the run, which says it.
    """

    exit_code = 1
    label = "error"

    def __init__(self, message: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.fix = fix
        self.is_relayed = False

    def __str__(self) -> str:
        lines = [f"{self.label}: {self.message}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(RlhfError):
    exit_code = 2


class DataError(RlhfError):
    exit_code = 65


class CheckpointError(DataError):
    pass


class MissingInputError(RlhfError):
    exit_code = 66


class UnavailableError(RlhfError):
    exit_code = 69


class ResourceError(RlhfError):
    exit_code = 71


class RunConflictError(RlhfError):
    exit_code = 73


class Preempted(RlhfError):
    exit_code = 75
    label = "stopped"


class DivergedError(RlhfError):
    exit_code = 76


class ConfigError(RlhfError):
    exit_code = 78
