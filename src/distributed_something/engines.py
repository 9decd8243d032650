"""Lists the engines and the facts that the core asks for before an engine is loaded.

This table imports nothing. `steps.project` and `ds check` load an engine's package when it is chosen.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes of `ds --help`
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType


class EngineKind:
    """Facts about one engine. Immutable by convention.

    `package` is the engine's package inside this one, with dots where it lies deeper. Its
    module `engine` has `make(folder, config, clock, *, say)`, which returns an `engine.Engine` (with `faults`
    too if it `rehearses`). Its module `check` has `checks(folder, config, job_file, fleet_file)`, which takes
    a `JobFile` and a fleet file's path. It returns the checks of `ds check`, and may raise UsageError.
    """

    __slots__ = (
        "buckets",
        "budgets",
        "containers",
        "foreign_workers",
        "hosts",
        "on_this_machine",
        "package",
        "packs",
        "rehearses",
        "rents",
        "works_as_set_up",
    )

    def __init__(
        self,
        package: str,
        *,
        rents: bool = True,
        foreign_workers: bool = True,
        works_as_set_up: bool = True,
        rehearses: bool = False,
        buckets: bool = False,
        budgets: str = "",
        on_this_machine: bool = False,
        containers: str = "docker podman apptainer",
        packs: bool = False,
        hosts: bool = False,
    ) -> None:
        self.package = package
        self.rents = rents
        """A fleet file, and the config's keys on machines and disks, say what to rent."""
        self.foreign_workers = foreign_workers
        """The image may start a worker of its own kind; without that, COMMAND or HANDLER is needed."""
        self.works_as_set_up = works_as_set_up
        """Workers read the config of the latest `ds setup`; without that, the config at their start."""
        self.rehearses = rehearses
        """Faults can be ordered (`--faults`), and the run's story is printed at the end."""
        self.buckets = buckets
        """The store is the bucket AWS_BUCKET; without that, what STORE names."""
        self.budgets = tuple(budgets.split())
        """What a run's budget can limit: usd, hours."""
        self.on_this_machine = on_this_machine
        """Without an image, jobs run the programs of this machine, in the project folder's reach."""

        self.containers = tuple(containers.split())
        """The container engines that run an image here, the first choice first."""

        self.hosts = hosts
        """The machines are those of HOSTS: all, unless CLUSTER_MACHINES is given."""

        self.packs = packs
        """The queue chooses jobs by what they need; else the largest need says how many run at a time."""

    def module(self, name: str) -> ModuleType:
        """Imports a module of the engine's package, such as `engine` or `check`."""
        from importlib import import_module

        return import_module(f"{__package__}.{self.package}.{name}")


ENGINES: Mapping[str, EngineKind] = {
    "local": EngineKind(
        "local",
        rents=False,
        foreign_workers=False,
        works_as_set_up=False,
        on_this_machine=True,
        packs=True,
    ),
    "slurm": EngineKind(
        "cluster.slurm",
        rents=False,
        foreign_workers=False,
        works_as_set_up=False,
        budgets="hours",
        on_this_machine=True,
        containers="apptainer podman docker",
        packs=True,
    ),
    "ssh": EngineKind(
        "cluster.hosts",
        rents=False,
        foreign_workers=False,
        works_as_set_up=False,
        budgets="hours",
        on_this_machine=True,
        containers="apptainer podman docker",
        packs=True,
        hosts=True,
    ),
    "aws": EngineKind("aws", buckets=True, budgets="usd hours"),
    "rehearsal": EngineKind("rehearsal", rehearses=True, buckets=True, budgets="usd hours"),
}
