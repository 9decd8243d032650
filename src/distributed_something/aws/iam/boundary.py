"""The permissions boundary of the roles: what no policy inside them can exceed.

The account's owner makes it, once, from what `ds account policy --boundary` prints. From then on `ds account
setup` makes roles with it only, and its administrator, who cannot change it, has no need of more rights.
"""

from __future__ import annotations

from ...s3.session import NO_SUCH, AwsSession, aws_errors, or_none
from ..names import PREFIX
from .policies import Document, Grant, Used, document, shortened, trusted
from .roles import ALARM_SERVICE, PATH, Where

BOUNDARY = PREFIX + "boundary"  # name of the policy; its path is that of the roles

CONDITION = "iam:PermissionsBoundary"
_ALL = "a boundary gives no right: the policies of the roles name what they may be used on"


def boundary_arn(where: Where) -> str:
    """The ARN of the boundary, whether it is there or not."""
    return where.arn("iam", f"policy{PATH}{BOUNDARY}", region="")


def boundary_grants(where: Where) -> tuple[Grant, ...]:
    """Every action of every role. What could lead to other rights is for roles and a function of our own."""
    secrets = (where.arn("ssm", "x"), where.arn("secretsmanager", "x"))
    roles = trusted(where, Used(("a",), ("b",), secrets, images=True))
    grants = (grant for role in roles for group in role.groups.values() for grant in group)
    actions = {action for grant in grants for action in grant.actions}
    linked = where.arn("iam", f"role/aws-service-role/{ALARM_SERVICE}/*", region="")
    only = (
        Grant("Pass", ("iam:PassRole",), (where.arn("iam", f"role{PATH}*", region=""),)),
        Grant("Linked", ("iam:CreateServiceLinkedRole",), (linked,)),
        Grant("Call", ("lambda:InvokeFunction",), (where.function(region="*"),)),
    )
    actions.difference_update(*(each.actions for each in only))
    return (Grant("Most", tuple(sorted(actions)), ("*",), why_all=_ALL), *only)


def boundary_policy(where: Where) -> Document:
    """The policy that the account's owner makes."""
    return shortened(document(boundary_grants(where)))


def has_boundary(session: AwsSession, where: Where) -> bool:
    """Whether the account has the boundary. No, if that may not be looked at. Raises DsError."""
    with aws_errors("looking for the permissions boundary"):
        iam = session.client("iam")
        return or_none(iam.get_policy, NO_SUCH, "AccessDenied", PolicyArn=boundary_arn(where)) is not None
