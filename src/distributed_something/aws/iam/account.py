"""Makes and removes what an account needs once: roles, and the instance profile of machines.

`plan_setup` and `plan_removal` are pure: they turn wanted and found roles into calls, each with its line for
the screen. Resources without our path and tag are never changed. Called by `ds account` and `ds check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ...clock import Clock
from ...errors import DsError
from ...inputs.fleetfile import IMAGE_PARAMETER
from ...s3.session import NO_SUCH, AwsSession, aws_errors, error_code, error_words, or_none
from ..names import tag_list, tags_of
from .boundary import boundary_arn
from .policies import INSIDE_LIMIT, Document, Trusted, Used, compact, trust, trusted
from .roles import IMAGE_ROLES, LINKED, PATH, PROFILE, PROFILES, TAGS, Role, Where, is_ours

PROPAGATION_SECONDS = 120.0  # longest wait until EC2 knows a new profile, in seconds

LINK = "create_service_linked_role"
"""The call that makes a role of AWS's own. AWS also makes the role when it is first needed."""

_TRY_SECONDS = 3.0


class FoundRole(NamedTuple):
    """A role that is there."""

    path: str
    tags: Mapping[str, str]
    trust: Document
    policies: Mapping[str, Document]
    boundary: str = ""


class FoundProfile(NamedTuple):
    """The instance profile that is there, with the names of its roles."""

    path: str
    tags: Mapping[str, str]
    roles: tuple[str, ...]


class Found(NamedTuple):
    """Our resources in an account, by name or path. `linked`: services whose own role exists."""

    roles: Mapping[str, FoundRole] = {}
    profiles: Mapping[str, FoundProfile] = {}
    linked: frozenset[str] = frozenset()

    def used(self, part: str) -> Used:
        """What the roles allow tasks to use, in the partition `part` of AWS."""
        task, execution = (
            role.policies if (role := self.roles.get(name)) else {} for name in (Role.TASK, Role.EXECUTION)
        )
        used = Used.by_policies(task.get("store", {}), execution.get("secrets", {}), part)
        return used._replace(images=not IMAGE_ROLES.isdisjoint(self.roles))


class Step(NamedTuple):
    """One call to a service, and what it does in words."""

    text: str
    call: str
    request: Mapping[str, Any]
    service: str = "iam"


# -- Deciding -----------------------------------------------------------------------------------------------


def plan_setup(where: Where, used: Used, found: Found, *, bounded: bool = False) -> list[Step]:
    """Plans the calls that add what an account lacks; none if it is complete.

    What the roles allow already stays in them. `bounded`: the account has the permissions boundary, and every
    role gets it. Raises DsError if a name of ours is taken.
    """
    _check_ours(found)
    used = used.joined(found.used(where.part))
    steps: list[Step] = []
    for each in trusted(where, used):
        steps += _role_steps(where, each, found.roles.get(each.role), boundary_arn(where) if bounded else "")
    for name in PROFILES if used.images else (PROFILE,):
        steps += _profile_steps(name, found.profiles.get(name))
    for name, service in LINKED.items():
        if service not in found.linked:
            request = {"AWSServiceName": service}
            steps.append(Step(f"create AWS's own role {name}", LINK, request))
    return steps


def _check_ours(found: Found) -> None:
    fix = "rename or remove it, if nothing needs it: its name is one that this program gives"
    for name, role in found.roles.items():
        if role.path != PATH or not is_ours(role.tags):
            raise DsError(f"the role {role.path}{name} is there, and was not made by this program", fix)
    for name, profile in found.profiles.items():
        if profile.path != PATH or not is_ours(profile.tags):
            what = f"the instance profile {profile.path}{name} is there, and was not made by this program"
            raise DsError(what, fix)


def _role_steps(where: Where, wanted: Trusted, found: FoundRole | None, boundary: str) -> Iterator[Step]:
    name, trusting = str(wanted.role), trust(where, wanted.service)
    within = {"PermissionsBoundary": boundary} if boundary else {}
    if found is None:
        request = {
            "RoleName": name,
            "Path": PATH,
            "AssumeRolePolicyDocument": compact(trusting),
            "Description": f"distributed-something: {wanted.purpose}",
            "Tags": tag_list(TAGS),
            **within,
        }
        yield Step(f"create role {name}: {wanted.purpose}", "create_role", request)
    elif not _same(found.trust, trusting):
        request = {"RoleName": name, "PolicyDocument": compact(trusting)}
        yield Step(f"correct who may take on {name}", "update_assume_role_policy", request)
    if found and boundary and found.boundary != boundary:
        request = {"RoleName": name, **within}
        yield Step(f"set the permissions boundary of {name}", "put_role_permissions_boundary", request)
    there = found.policies if found else {}
    size = sum(len(compact(policy)) for policy in wanted.policies().values())
    if size > INSIDE_LIMIT:
        most = f"{INSIDE_LIMIT:,}"
        what = f"the policies inside the role {name} would have {size:,} characters, and IAM takes {most}"
        fix = "ds account destroy, then ds account setup for the projects in use: buckets of others go"
        raise DsError(what, fix)
    for group, policy in wanted.policies().items():
        if not _same(there.get(group), policy):
            request = {"RoleName": name, "PolicyName": group, "PolicyDocument": compact(policy)}
            verb = "correct" if group in there else "add"
            yield Step(f"{verb} policy {group} of {name}", "put_role_policy", request)
    for group in sorted(there.keys() - wanted.groups.keys()):
        yield _without_policy(name, group)


def _without_policy(role: str, policy: str) -> Step:
    request = {"RoleName": role, "PolicyName": policy}
    return Step(f"delete policy {policy} of {role}", "delete_role_policy", request)


def _profile_steps(name: str, found: FoundProfile | None) -> Iterator[Step]:
    named, own = {"InstanceProfileName": name}, PROFILES[name]
    if found is None:
        request = {**named, "Path": PATH, "Tags": tag_list(TAGS)}
        yield Step(f"create instance profile {name}", "create_instance_profile", request)
    roles = found.roles if found else ()
    for role in roles:  # a profile holds one role
        if role != own:
            yield _out_of_profile(name, role)
    if own not in roles:
        request = {**named, "RoleName": str(own)}
        yield Step(f"put role {own} into its profile", "add_role_to_instance_profile", request)


def _out_of_profile(name: str, role: str) -> Step:
    request = {"InstanceProfileName": name, "RoleName": role}
    return Step(f"take role {role} out of {name}", "remove_role_from_instance_profile", request)


def plan_removal(found: Found) -> list[Step]:
    """Plans the calls that remove resources with our path and tag, and nothing else."""
    steps: list[Step] = []
    for name, profile in found.profiles.items():
        if profile.path == PATH and is_ours(profile.tags):
            steps += [_out_of_profile(name, role) for role in profile.roles]
            request = {"InstanceProfileName": name}
            steps.append(Step(f"delete instance profile {name}", "delete_instance_profile", request))
    for name, role in sorted(found.roles.items()):
        if role.path == PATH and is_ours(role.tags):
            steps += [_without_policy(name, policy) for policy in sorted(role.policies)]
            steps.append(Step(f"delete role {name}", "delete_role", {"RoleName": name}))
    return steps


def _same(found: Any, wanted: Any) -> bool:
    """Whether two policies are equal: AWS may sort a list, or write a list of one item as the item."""
    return bool(_plain(found) == _plain(wanted))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return items[0] if len(items) == 1 else sorted(items, key=str)
    return value


# -- Asking and acting --------------------------------------------------------------------------------------


def who(session: AwsSession) -> tuple[str, str]:
    """The account's number, and the caller's ARN. Raises DsError."""
    client = session.client("sts")
    with aws_errors("asking AWS who you are"):
        answer = client.get_caller_identity()
    return str(answer["Account"]), str(answer["Arn"])


def find(session: AwsSession) -> Found:
    """Reads our resources in an account. Raises DsError."""
    iam = session.client("iam")
    with aws_errors("looking for roles"):
        paginator = iam.get_paginator("list_roles")
        listed = [each["RoleName"] for page in paginator.paginate(PathPrefix=PATH) for each in page["Roles"]]
        roles = {name: found for name in {*listed, *map(str, Role)} if (found := _find_role(iam, name))}
        paths = [
            each["Path"]
            for page in paginator.paginate(PathPrefix="/aws-service-role/")
            for each in page["Roles"]
        ]
        linked = frozenset(service for service in LINKED.values() if f"/aws-service-role/{service}/" in paths)
        profiles = {name: one for name in PROFILES if (one := _find_profile(iam, name))}
        return Found(roles, profiles, linked)


def _find_role(iam: Any, name: str) -> FoundRole | None:
    found = or_none(iam.get_role, NO_SUCH, RoleName=name)
    if found is None:
        return None
    role = found["Role"]
    pages = iam.get_paginator("list_role_policies").paginate(RoleName=name)
    names = [policy for page in pages for policy in page["PolicyNames"]]
    policies = {
        policy: iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"] for policy in names
    }
    boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn", "")
    return FoundRole(role["Path"], tags_of(role), role["AssumeRolePolicyDocument"], policies, boundary)


def _find_profile(iam: Any, name: str) -> FoundProfile | None:
    found = or_none(iam.get_instance_profile, NO_SUCH, InstanceProfileName=name)
    if found is None:
        return None
    profile = found["InstanceProfile"]
    roles = tuple(role["RoleName"] for role in profile["Roles"])
    return FoundProfile(profile["Path"], tags_of(profile), roles)


def apply(session: AwsSession, steps: Iterable[Step]) -> None:
    """Makes the calls in order. After a failure a new plan continues."""
    for step in steps:
        with aws_errors(step.text):
            getattr(session.client(step.service), step.call)(**step.request)


_CROSSED = frozenset({
    "ConcurrentModification", "ConflictException", "EntityAlreadyExists", "InvalidInput",  # a linked role
    "LimitExceeded", "NoSuchEntity", "OperationAbortedException", "ResourceAlreadyExistsException",
    "ResourceConflictException",
})  # fmt: skip
"""Codes of calls that another set-up may have made a moment ago."""


def is_crossed(error: DsError) -> bool:
    """Whether another set-up at the same time explains why a call failed."""
    return error_code(error.__cause__) in _CROSSED if hasattr(error.__cause__, "response") else False


def remove(session: AwsSession, steps: Iterable[Step]) -> list[str]:
    """Makes all calls, also after a failure. Returns a line for each refusal."""
    refused = []
    for step in steps:
        try:
            apply(session, [step])
        except DsError as error:
            refused.append(error.what)
    return refused


def wait_for_roles(session: AwsSession, where: Where, clock: Clock, profile: str = PROFILE) -> str | None:
    """Waits until IAM shows the roles and EC2 accepts the profile. Returns why it cannot be tried.

    EC2 knows a profile some seconds after IAM does: a dry run of starting a machine tries it. Raises DsError
    if EC2 does not know it after PROPAGATION_SECONDS.
    """
    iam = session.client("iam")
    with aws_errors("waiting for the roles"):
        for role in (*(each for each in Role if each not in IMAGE_ROLES), PROFILES[profile]):
            iam.get_waiter("role_exists").wait(RoleName=str(role))
        iam.get_waiter("instance_profile_exists").wait(InstanceProfileName=profile)
    deadline = clock.monotonic() + PROPAGATION_SECONDS
    while (why := _try_profile(session, where.profile_of(profile))) == _NOT_YET:
        if clock.monotonic() >= deadline:
            what = f"EC2 does not know {profile} {PROPAGATION_SECONDS:.0f} s after it was made"
            raise DsError(what, "ds account setup again, in a few minutes: it goes on where this stopped")
        clock.wait(_TRY_SECONDS)
    return why


_NOT_YET = "not yet"


def _try_profile(session: AwsSession, profile: str) -> str | None:
    """None: EC2 accepts the profile; _NOT_YET: it does not know it; else why that cannot be tried."""
    import botocore.exceptions

    try:
        answer = session.client("ssm").get_parameter(Name=IMAGE_PARAMETER)
        session.client("ec2").run_instances(
            DryRun=True,
            ImageId=answer["Parameter"]["Value"],
            InstanceType="t3.micro",
            IamInstanceProfile={"Arn": profile},
            MinCount=1,
            MaxCount=1,
        )
    except botocore.exceptions.ClientError as error:
        code, message = error_code(error), error_words(error)
        if code == "DryRunOperation":
            return None
        unknown = code in ("NoSuchEntity", "InvalidParameterValue") and "profile" in message.lower()
        return _NOT_YET if unknown else f"{code}: {message}"
    return None


def users(session: AwsSession, regions: Iterable[str]) -> list[str]:
    """ARNs of queues and services of runs in these regions. Raises DsError."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda region: _users_in(session.elsewhere(region)), regions)
        return sorted(arn for arns in found for arn in arns)


def _users_in(session: AwsSession) -> list[str]:
    pages = session.client("resourcegroupstaggingapi").get_paginator("get_resources")
    with aws_errors(f"looking for runs in {session.region}"):
        return [
            each["ResourceARN"]
            for page in pages.paginate(
                TagFilters=[{"Key": "ds:app"}], ResourceTypeFilters=["sqs", "ecs:service"]
            )
            for each in page["ResourceTagMappingList"]
        ]


def enabled_regions(session: AwsSession) -> list[str]:
    """The regions that the account may use. Raises DsError."""
    with aws_errors("listing the regions"):
        found = session.client("ec2").describe_regions()["Regions"]
    return [each["RegionName"] for each in found if each.get("OptInStatus") != "not-opted-in"]
