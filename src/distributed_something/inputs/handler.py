"""Reads the parameters of a HANDLER from its source. Runs nothing of it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from ..errors import UsageError
from ..words import did_you_mean
from .config import Config
from .files import project_files

GIVEN = frozenset({"job", "job_id", "attempt", "work_dir", "input_dir", "output_dir"})
"""Parameters that every handler gets beside the keys of the job."""


def source_of(handler: str, folder: Path) -> Path | None:
    """Returns the file of a handler's module below a folder; None: it is not there."""
    place = folder.joinpath(*handler.partition(":")[0].split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def handler_needs(config: Config, folder: Path) -> frozenset[str]:
    """Returns the parameters of the HANDLER that every job must have as keys. Raises UsageError.

    Nothing is known of a function whose source does not lie in the project folder.
    """
    source = _source(config, folder)
    given = frozenset({"shared_dir"} if config.shared_inputs else ())
    return parameters_needed(config.handler, source) - given if source else frozenset()


def _source(config: Config, folder: Path) -> Path | None:
    """Returns the source of the HANDLER that jobs will import, if it comes from the project folder."""
    source = source_of(config.handler, folder) if config.handler else None
    if source is None or not config.engine_kind.rents:
        return source
    return source if handler_travels(config, folder, project_files(config, folder)) else None


def handler_travels(config: Config, folder: Path, files: Mapping[str, object]) -> bool:
    """Whether the module of the HANDLER is among the project files."""
    source = source_of(config.handler, folder)
    return source is not None and source.relative_to(folder).as_posix() in files


def imported_files(source: Path, folder: Path) -> list[str]:
    """Returns the modules of the project folder that a module imports by name, as files of that folder."""
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
    ]
    found = (source_of(name, folder) for name in dict.fromkeys(names))
    return [path.relative_to(folder).as_posix() for path in found if path is not None]


def parameters_needed(handler: str, source: Path) -> frozenset[str]:
    """Returns the parameters that must be keys of the job. Raises UsageError where the function is missing.

    The first parameter gets the whole job where no key has its name. Nothing is known, and none is needed,
    of what is no plain `def` of the module.
    """
    module, _, name = handler.partition(":")
    try:
        tree = ast.parse(source.read_bytes(), source.name)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        what = f"HANDLER: {source.name}{line}: {getattr(error, 'msg', error)}"
        raise UsageError(what, f"correct {source.name}") from error
    found = _Names(tree)
    if "." in name or name in found.others or found.open:
        return frozenset()
    if name not in found.functions:
        what = f"HANDLER: {module} has no function {name}{did_you_mean(name, found.functions)}"
        raise UsageError(what, "name a function of the module: module:function")
    function = found.functions[name]
    return frozenset() if function.decorator_list else _needed(function.args) - GIVEN


def _needed(given: ast.arguments) -> frozenset[str]:
    positional = [*given.posonlyargs, *given.args]
    without_default = positional[: len(positional) - len(given.defaults)]
    named = [arg for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    return frozenset(arg.arg for arg in [*without_default, *named] if arg is not (positional or named)[0])


class _Names:
    """The names that a module binds: `functions` by `def`, `others`; `open`: perhaps more."""

    def __init__(self, tree: ast.Module) -> None:
        self.functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self.others: set[str] = set()
        self.open = False
        self._read(tree.body)

    def _read(self, statements: list[ast.stmt]) -> None:
        for each in statements:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                if each.name in self.functions:  # which one it is, is known when it runs
                    self.others.add(each.name)
                self.functions[each.name] = each
                self.open |= each.name == "__getattr__"
            elif isinstance(each, ast.Import | ast.ImportFrom):
                self.open |= any(alias.name == "*" for alias in each.names)
                self.others |= {(alias.asname or alias.name).partition(".")[0] for alias in each.names}
            elif isinstance(each, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.ClassDef):
                self.others |= {node.id for node in ast.walk(each) if isinstance(node, ast.Name)}
                self.others |= {each.name} if isinstance(each, ast.ClassDef) else set()
            else:  # `if`, `try`, `with`: what is inside may be bound
                for node in ast.iter_child_nodes(each):
                    if isinstance(node, ast.expr):
                        continue
                    self._read([node] if isinstance(node, ast.stmt) else getattr(node, "body", []))
