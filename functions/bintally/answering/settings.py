"""The environment of `sign_in` and, beside that of reviews, of `answer`; read once on first use."""

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


@dataclass(frozen=True)
class AnswerSettings:
    """The settings of `answer` about files of records, models and retrainings."""

    images_bucket: str
    artifacts_bucket: str
    package_group: str
    endpoint_name: str
    release_machine: str
    retrain_machine: str


@cache
def answer_settings() -> AnswerSettings:
    """Raises KeyError, which names the variable, when one is missing."""
    return AnswerSettings(
        images_bucket=os.environ["IMAGES_BUCKET"],
        artifacts_bucket=os.environ["ARTIFACTS_BUCKET"],
        package_group=os.environ["MODEL_PACKAGE_GROUP"],
        endpoint_name=os.environ["ENDPOINT_NAME"],
        release_machine=os.environ["RELEASE_STATE_MACHINE"],
        retrain_machine=os.environ["RETRAIN_STATE_MACHINE"],
    )
