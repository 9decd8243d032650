"""Runs `ds account`: plans, shows the plan, asks for confirmation, acts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..aws.iam import account
from ..aws.iam.boundary import BOUNDARY, boundary_policy, has_boundary
from ..aws.iam.policies import MANAGED_LIMIT, Used, parts
from ..aws.iam.roles import IMAGE_PROFILE, PATH, PROFILE, Where
from ..aws.iam.user_policies import administrator_policy, user_policy
from ..aws.watch.function import apply_function, everywhere, find_function, package, plan_function
from ..errors import LEFTOVERS, OK, DsError
from ..s3.session import AwsSession

if TYPE_CHECKING:
    from ..steps.project import Project

_SHOWN = 5
_LOOKS, _LOOK_SECONDS = 10, 1.0
"""New plans after one call that another set-up crossed, and the pause before each: IAM shows changes late."""


def setup(project: Project, *, dry_run: bool) -> int:
    """Ask, then make what the account lacks."""
    console, session = project.console, _session(project)
    where = _where(project, session)
    used, bounded, code = Used.of(project.config, where), has_boundary(session, where), package()

    def roles() -> list[account.Step]:
        return account.plan_setup(where, used, account.find(session), bounded=bounded)

    def function() -> list[account.Step]:
        return plan_function(where, find_function(session), code)

    steps, more = roles(), function()
    if not _agreed(project, [*steps, *more], f"change the account {where.number}", dry_run=dry_run):
        return OK
    _make(project, steps, roles, lambda some: account.apply(session, some))
    untried = account.wait_for_roles(session, where, project.clock, IMAGE_PROFILE if used.images else PROFILE)
    _make(project, more, function, lambda some: apply_function(session, some, project.clock))
    if untried:
        console.say(f"note: whether EC2 takes the new profile could not be tried: {untried}")
    console.say(f"the account {where.number} is set up: roles and instance profile are at {PATH}")
    console.say(f"the auto-monitor of {where.region} is there, for runs with AUTO_MONITOR")
    console.hint("ds account policy prints the policy that users need; then ds check")
    return OK


def _make(
    project: Project,
    steps: Sequence[account.Step],
    plan: Callable[[], list[account.Step]],
    apply: Callable[[Sequence[account.Step]], None],
) -> None:
    """Makes the calls. Where another set-up was quicker, a new plan goes on with what is there."""
    looks = 0
    while steps:
        try:
            apply(steps[:1])
            steps, looks = steps[1:], 0
        except DsError as error:
            if looks == _LOOKS or not account.is_crossed(error):
                raise
            looks += 1
            project.clock.wait(_LOOK_SECONDS)
            steps = plan()


def destroy(project: Project, *, dry_run: bool) -> int:
    """Ask, then remove what `setup` made. Returns the exit code: 4 if a last look still finds something.

    Raises DsError if a run has queues or services in any region; nothing has been removed then.
    """
    console, session = project.console, _session(project)
    where = _where(project, session)
    plans = _removals(session, account.enabled_regions(session))
    steps = [step for _, steps in plans for step in steps]
    if steps:
        _refuse_while_used(session)
    if not _agreed(project, steps, f"remove these from the account {where.number}", dry_run=dry_run):
        return OK
    for region, removal in plans:
        for refused in account.remove(region, removal):
            console.say(f"refused: {refused}")
    left = _removals(session, [region.region for region, _ in plans])
    leftovers = [step.text for _, removal in left for step in removal]
    for leftover in leftovers:
        console.say(f"still to do: {leftover}")
    if leftovers:
        return LEFTOVERS
    console.say(f"clean: nothing of this program is left in the account {where.number}")
    return OK


def _removals(session: AwsSession, regions: Iterable[str]) -> list[tuple[AwsSession, list[account.Step]]]:
    """Returns what is to be removed and where: the auto-monitor in these regions, then the roles."""
    plans = everywhere(session, regions)
    if roles := account.plan_removal(account.find(session)):
        plans.append((session, roles))
    return plans


def policy(project: Project, *, administrator: bool, boundary: bool) -> int:
    """Print the policy that a user of this program needs; several, where one would be too long for IAM."""
    session = _session(project)
    where = _where(project, session)
    if boundary:
        found = boundary_policy(where)
        made = f"aws iam create-policy --path {PATH} --policy-name {BOUNDARY} --policy-document file://…"
        project.console.hint(f"the account's owner makes it ({made}); then ds account policy --administrator")
    elif administrator:
        found = administrator_policy(where, bounded=has_boundary(session, where))
    else:
        found = user_policy(project.config, where)
    policies = parts(found)
    for each in policies:
        project.console.line(json.dumps(each, indent=None if project.console.json else 2))
    if len(policies) > 1:
        what = f"{len(policies)} policies, as a managed one may have {MANAGED_LIMIT:,} characters"
        project.console.say(f"note: {what}: make and attach each of them")
    return OK


def _session(project: Project) -> AwsSession:
    return AwsSession(project.config.aws_region, project.config.aws_profile or None)


def _where(project: Project, session: AwsSession) -> Where:
    number, _ = account.who(session)
    return Where(number, project.config.aws_region)


def _agreed(project: Project, steps: Sequence[account.Step], question: str, *, dry_run: bool) -> bool:
    """Show the plan and ask. Returns whether to act. Raises UsageError if the answer is no."""
    console = project.console
    if console.json:
        console.data({"plan": [step.text for step in steps], "dry_run": dry_run})
    for step in steps:
        console.say(f"  {step.text}")
    if not steps:
        console.say("nothing to do")
    if dry_run or not steps:
        return False
    console.confirm(question)
    return True


def _refuse_while_used(session: AwsSession) -> None:
    used = account.users(session, account.enabled_regions(session))
    if used:
        more = f" and {len(used) - _SHOWN} more" if len(used) > _SHOWN else ""
        what = f"runs use the roles: {', '.join(used[:_SHOWN])}{more}"
        fix = "ds cleanup in each of their projects (AWS lists what was removed for some minutes more)"
        raise DsError(what, fix)
