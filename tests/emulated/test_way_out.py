"""Machines without a public address: `ds check` finds the subnets from which AWS cannot be reached."""

from __future__ import annotations

import json
import uuid

import pytest

from distributed_something.aws import check
from distributed_something.aws.iam.roles import Where
from distributed_something.inputs.checks.findings import Severity
from distributed_something.inputs.config import parse_config
from distributed_something.inputs.fleetfile import parse_fleet
from emulating import REGION, session

WHERE = Where("123456789012", REGION)


class Network:
    """A VPC with one subnet and no way out."""

    def __init__(self) -> None:
        self.ec2 = session().client("ec2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self._subnet("10.9.1.0/24")

    def _subnet(self, block: str) -> str:
        found: str = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=block)["Subnet"]["SubnetId"]
        return found

    def route(self, *, own: bool, **to: str) -> None:
        """Leads everything somewhere, by a table of the subnet's own or by the main one."""
        if own:
            table = self.ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
            self.ec2.associate_route_table(RouteTableId=table, SubnetId=self.subnet)
        else:
            wanted = [{"Name": "vpc-id", "Values": [self.vpc]}]
            (found,) = self.ec2.describe_route_tables(Filters=wanted)["RouteTables"]
            table = found["RouteTableId"]
        self.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **to)

    def internet(self) -> str:
        gateway: str = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        return gateway

    def nat(self) -> str:
        address = self.ec2.allocate_address(Domain="vpc")["AllocationId"]
        made = self.ec2.create_nat_gateway(SubnetId=self._subnet("10.9.2.0/24"), AllocationId=address)
        return str(made["NatGateway"]["NatGatewayId"])

    def endpoints(self, *services: str) -> None:
        for service in services:
            self.ec2.create_vpc_endpoint(VpcId=self.vpc, ServiceName=f"com.amazonaws.{REGION}.{service}")

    def errors(self, *, assign_ip: bool = False) -> list[str]:
        text = f"APP_NAME = 'App{uuid.uuid4().hex[:6]}'\nASSIGN_IP = {assign_ip}\nCLUSTER_MACHINES = 2\n"
        launch = {
            "ImageId": "ami-0123456789abcdef0",
            "IamInstanceProfile": {"Arn": "arn:aws:iam::123456789012:instance-profile/p"},
            "SubnetId": self.subnet,
        }
        file = {"IamFleetRole": "arn:aws:iam::123456789012:role/r", "LaunchSpecifications": [launch]}
        fleet = parse_fleet(json.dumps(file), "fleet.json")
        asker = check.Asker(session(), parse_config(text), WHERE, fleet)
        return [each.what for each in asker.subnets() if each.severity is Severity.ERROR]


@pytest.fixture
def network() -> Network:
    return Network()


def test_a_subnet_without_nat_or_endpoints_is_found(network: Network) -> None:
    (what,) = network.errors()
    assert "ASSIGN_IP = False" in what and network.subnet in what
    assert "ecs, ecs-agent, ecs-telemetry, sqs, s3, logs" in what
    assert not network.errors(assign_ip=True)


@pytest.mark.fault(43)
@pytest.mark.parametrize("own", [True, False])
def test_an_internet_gateway_does_not_help_and_a_nat_gateway_does(network: Network, *, own: bool) -> None:
    network.route(own=own, GatewayId=network.internet())
    assert len(network.errors()) == 1
    other = Network()
    other.route(own=own, NatGatewayId=other.nat())
    assert not other.errors()


def test_endpoints_for_all_services_help_and_one_that_lacks_is_named(network: Network) -> None:
    network.endpoints("ecs", "ecs-agent", "ecs-telemetry", "sqs", "logs")
    (what,) = network.errors()
    assert what.endswith("no endpoint for s3")
    network.endpoints("s3")
    assert not network.errors()
