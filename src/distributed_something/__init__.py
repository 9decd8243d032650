"""Run one command or Python function over many independent jobs, here or on rented machines.

`Project`, `Run` and `Executor` are for programs and notebooks: docs/python.md.
"""

__version__ = "0.1.0"
__all__ = ["CallError", "Executor", "Project", "Run"]

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes
if TYPE_CHECKING:
    from .api.executor import CallError, Executor
    from .api.project import Project, Run


def __getattr__(name: str) -> object:
    """Loads the Python API at its first use: `ds --help` does not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = "executor" if name in ("CallError", "Executor") else "project"
    return getattr(import_module(f".api.{module}", __name__), name)
