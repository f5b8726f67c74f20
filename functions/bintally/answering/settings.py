"""The environment of `sign_in`, read once on first use."""

import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class SignInSettings:
    """The settings of `sign_in`."""

    user_pool: str
    user_pool_client: str


@cache
def sign_in_settings() -> SignInSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return SignInSettings(user_pool=os.environ["USER_POOL"], user_pool_client=os.environ["USER_POOL_CLIENT"])
