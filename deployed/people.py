"""The people of a stack's user pool: who may sign in, as what, and at which sites.

A person's groups say both: one of viewer, counter and manager, and `site:<id as in a path>` or `site:*`.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from deployed.api import encode_id
from deployed.errors import NotDeployed, StackError
from deployed.stack import Deployed

ROLES = ("viewer", "counter", "manager")
NAME = re.compile(r"[\w.@+-]{1,64}")
SITE, ALL_SITES = "site:", "*"
LONGEST_GROUP = 128
WORDS = "abcdefghijkmnpqrstuvwxyz23456789"
"""Letters and digits that nobody takes for others when they copy a password from paper."""


@dataclass(frozen=True)
class Member:
    """A person of the pool. `sites` are groups without their prefix; `status` is Cognito's."""

    name: str
    role: str | None
    sites: tuple[str, ...]
    status: str
    added: datetime


@dataclass(frozen=True)
class People:
    """The people of a stack."""

    stack: Deployed

    def add(self, name: str, role: str, sites: Iterable[str]) -> str:
        """Adds a person (`name` in any case) and returns the temporary password, which they replace at their first
        sign-in.

        `sites` may hold ALL_SITES. Raises StackError.
        """
        if not NAME.fullmatch(name):
            raise StackError(f"{name[:80]!r} is not a name: letters, digits, . _ @ + - without spaces, at most 64")
        name = name.lower()
        groups = [role, *map(group_of, sites)]
        pool, given = self._pool(), new_password()
        try:
            self._cognito.admin_create_user(
                UserPoolId=pool, Username=name, TemporaryPassword=given, MessageAction="SUPPRESS"
            )
        except self._cognito.exceptions.UsernameExistsException as error:
            raise StackError(
                f"{name} exists. See bintally people list; give a new password with: bintally people reset {name}"
            ) from error
        try:
            self._join(pool, name, groups)
        except BaseException:
            self._cognito.admin_delete_user(UserPoolId=pool, Username=name)  # half a person would be in the way
            raise
        return given

    def keep_password(self, name: str, password: str) -> None:
        """Sets a password that the person need not replace: of the demo's people, who are nobody."""
        self._cognito.admin_set_user_password(UserPoolId=self._pool(), Username=name, Password=password, Permanent=True)

    def reset(self, name: str) -> str:
        """Gives a person a temporary password and ends their sessions. Raises StackError."""
        pool, name, given = self._pool(), name.lower(), new_password()
        try:
            self._cognito.admin_set_user_password(UserPoolId=pool, Username=name, Password=given, Permanent=False)
            self._cognito.admin_user_global_sign_out(UserPoolId=pool, Username=name)
        except self._cognito.exceptions.UserNotFoundException as error:
            raise unknown(name) from error
        return given

    def remove(self, name: str) -> None:
        """Raises StackError. What they counted stays."""
        try:
            self._cognito.admin_delete_user(UserPoolId=self._pool(), Username=name.lower())
        except self._cognito.exceptions.UserNotFoundException as error:
            raise unknown(name) from error

    def members(self) -> Iterator[Member]:
        """Everybody, by name."""
        pool = self._pool()
        pages = self._cognito.get_paginator("list_users").paginate(UserPoolId=pool)
        users = [user for page in pages for user in page["Users"]]
        for user in sorted(users, key=lambda user: str(user["Username"])):
            groups = self._groups(pool, user["Username"])
            yield Member(
                name=user["Username"],
                role=next((role for role in reversed(ROLES) if role in groups), None),
                sites=tuple(sorted(group.removeprefix(SITE) for group in groups if group.startswith(SITE))),
                status=user["UserStatus"],
                added=user["UserCreateDate"],
            )

    @property
    def _cognito(self) -> Any:
        return self.stack.client("cognito-idp")

    def _pool(self) -> str:
        outputs = self.stack.outputs()
        if "UserPool" not in outputs:
            raise NotDeployed("this stack has no user pool yet. Update it (docs/operations.md)")
        return outputs["UserPool"]

    def _groups(self, pool: str, name: str) -> list[str]:
        pages = self._cognito.get_paginator("admin_list_groups_for_user").paginate(UserPoolId=pool, Username=name)
        return [group["GroupName"] for page in pages for group in page["Groups"]]

    def _join(self, pool: str, name: str, groups: Iterable[str]) -> None:
        for group in groups:
            if group not in ROLES:  # those are the template's
                try:
                    self._cognito.create_group(UserPoolId=pool, GroupName=group)
                except ClientError as error:
                    if error.response["Error"]["Code"] != "GroupExistsException":
                        raise
            self._cognito.admin_add_user_to_group(UserPoolId=pool, Username=name, GroupName=group)


def group_of(site: str) -> str:
    """The group of a site. Raises StackError."""
    if site == ALL_SITES:
        return SITE + ALL_SITES
    group = SITE + encode_id(site)
    if not site.strip() or len(group) > LONGEST_GROUP:
        raise StackError(
            f"the site {site[:40]!r} is empty or too long for a group of Cognito ({LONGEST_GROUP} letters)"
        )
    return group


def new_password() -> str:
    """Twenty characters of 32: 100 bits."""
    text = "".join(secrets.choice(WORDS) for _ in range(20))
    return "-".join(text[start : start + 5] for start in range(0, 20, 5))


def unknown(name: str) -> StackError:
    return StackError(f"there is no {name[:80]}. See who is there with: bintally people list")
