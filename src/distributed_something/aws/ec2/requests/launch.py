"""Requests the machines of a run: by a fleet file, or from the config alone. Called by the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ....clock import Clock
from ....errors import UsageError
from ....inputs.config import Config
from ....inputs.fleetfile import Fleet, parse_fleet, read_fleet
from ...shape import MachineShape
from ..fleets import Fleets
from .ownfleet import ec2_fleet_request, launch_template
from .region import Region
from .request import Image, spot_fleet_request
from .userdata import start_script


class Asked(NamedTuple):
    """The fleet file, if there is one, and the least shape of its machines."""

    file: Fleet | None
    shape: MachineShape
    types: Sequence[str] = ()
    """The types of machine in the file; empty: the config's."""


class Launch:
    """Reads the fleet file, and requests a fleet. Raises DsError."""

    def __init__(self, config: Config, region: Region, fleets: Fleets, clock: Clock) -> None:
        self._config = config
        self._region = region
        self._fleets = fleets
        self._clock = clock
        self._user_data = start_script(config)

    def read(self, fleet_file: Path | None) -> Asked:
        """Checks the fleet file, placeholders included, before any call to AWS."""
        if fleet_file is None:
            return Asked(None, self._region.shape(self._config.machine_type))
        name, text = read_fleet(fleet_file)
        if self._config.on_demand_percent or self._config.on_demand_after:
            what = f"{name}: a fleet file asks for spot machines, and the config for some on demand"
            raise UsageError(what, "start without a fleet file, or remove ON_DEMAND_… from the config")
        file = parse_fleet(text, name, key_name=self._config.ssh_key_name)
        request = self._spot_request(file, "run", "token", {})
        types = types_of(request["LaunchSpecifications"])
        return Asked(file, self._region.shape(types or self._config.machine_type), types)

    def ask(
        self, asked: Asked, run: str, number: int, on_created: Callable[[str], None], types: Sequence[str]
    ) -> str:
        """Requests the run's fleet of this number, from 0. Returns its id; repeating it is safe.

        `types` of machines are those of the request, if there is no fleet file.
        """
        token = f"{run}-{number}"
        if asked.file is not None:
            specifications = asked.file.request()["LaunchSpecifications"]
            images = self._region.images(each["ImageId"] for each in specifications)
            return self._fleets.ask_spot(self._spot_request(asked.file, run, token, images))
        image_id = self._region.image_id()
        template = launch_template(
            self._config,
            self._region.account,
            image_id,
            run=run,
            token=token,
            user_data=self._user_data,
            image=self._region.images([image_id]).get(image_id, Image()),
            security_groups=self._region.security_groups(),
        )
        subnets = self._region.subnets()
        template_id, version = self._fleets.make_template(template)
        on_created(f"launch template {template['LaunchTemplateName']}")
        return self._fleets.ask_fleet(
            ec2_fleet_request(
                self._config._replace(machine_type=tuple(types)),
                subnets,
                template_id=template_id,
                template_version=version,
                run=run,
                now=self._clock.now(),
                token=token,
            )
        )

    def _spot_request(self, file: Fleet, run: str, token: str, images: Mapping[str, Image]) -> dict[str, Any]:
        return spot_fleet_request(
            file,
            self._config,
            run=run,
            now=self._clock.now(),
            token=token,
            user_data=self._user_data,
            images=images,
        )


def types_of(specifications: Iterable[Mapping[str, Any]]) -> list[str]:
    """The types of machine that launch specifications name, each once."""
    return list(dict.fromkeys(each["InstanceType"] for each in specifications if "InstanceType" in each))
