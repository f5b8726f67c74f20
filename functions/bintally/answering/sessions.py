"""Sessions of people: signing in and out, and renewing a session, by the stack's user pool.

Cognito's own operations for browsers are not used: docs/decisions/people.md says why. No log and no error quotes
what a person typed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from bintally.answering.problems import Problem, wrong
from bintally.answering.requests import text_of
from bintally.aws.telemetry import logger
from bintally.common.errors import Transient

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp import CognitoIdentityProviderClient

LONGEST_NAME = 128
LONGEST_PASSWORD = 256
"""Characters; Cognito's own limits."""
LONGEST_TOKEN = 4096
"""A browser keeps no longer cookie."""
MEMBERS = ("name", "password", "new_password", "refresh", "sign_out")

WEAK_PASSWORD = "a password needs at least 12 characters"  # noqa: S105 (a message)
"""As the template's PasswordPolicy."""

WRONG = {"NotAuthorizedException", "UserNotFoundException", "InvalidParameterException"}
BUSY = {"TooManyRequestsException", "LimitExceededException", "ThrottlingException"}


@dataclass(frozen=True)
class Session:
    """`token` is the id token that /api takes, for `seconds`. `refresh` renews it; None where it stays as it is."""

    token: str
    seconds: int
    refresh: str | None = None


@dataclass(frozen=True)
class Sessions:
    """The sessions of a user pool's people."""

    cognito: "CognitoIdentityProviderClient"
    pool: str
    client: str

    def sign_in(self, body: Mapping[str, Any]) -> Session:
        """Signs in with a password; with `new_password` where an administrator has set the password.

        Raises Problem or Transient.
        """
        name = text_of(body, "name", longest=LONGEST_NAME).strip().lower()  # as a phone spells it
        password = text_of(body, "password", longest=LONGEST_PASSWORD)
        new = text_of(body, "new_password", longest=LONGEST_PASSWORD) if "new_password" in body else None
        answer = self._start("ADMIN_USER_PASSWORD_AUTH", {"USERNAME": name, "PASSWORD": password}, wrong_password())
        match answer.get("ChallengeName"):
            case None if new is None:
                return session_of(answer)
            case None:
                raise wrong("nobody asks for a new password; leave new_password out")
            case "NEW_PASSWORD_REQUIRED" if new is None:
                raise Problem(403, "NEW_PASSWORD", "choose a password of your own, and send it as new_password too")
            case "NEW_PASSWORD_REQUIRED":
                return self._choose(name, new or "", answer["Session"])
        raise Problem(403, "UNSUPPORTED", f"this stack cannot ask for {answer['ChallengeName']}")

    def renew(self, refresh: str) -> Session:
        """A new id token, with the person's groups of now. Raises Problem or Transient."""
        ended = Problem(401, "SESSION_ENDED", "the session has ended; sign in again")
        if not 0 < len(refresh) <= LONGEST_TOKEN:
            raise ended
        return session_of(self._start("REFRESH_TOKEN_AUTH", {"REFRESH_TOKEN": refresh}, ended))

    def sign_out(self, name: str) -> None:
        """Ends all sessions of a person: none can be renewed. Raises Transient."""
        ask(lambda: self.cognito.admin_user_global_sign_out(UserPoolId=self.pool, Username=name), wrong_password())

    def _start(self, flow: Any, parameters: dict[str, str], refused: Problem) -> Any:
        return ask(
            lambda: self.cognito.admin_initiate_auth(
                UserPoolId=self.pool, ClientId=self.client, AuthFlow=flow, AuthParameters=parameters
            ),
            refused,
        )

    def _choose(self, name: str, new: str, session: str) -> Session:
        answers = {"USERNAME": name, "NEW_PASSWORD": new}
        return session_of(
            ask(
                lambda: self.cognito.admin_respond_to_auth_challenge(
                    UserPoolId=self.pool,
                    ClientId=self.client,
                    ChallengeName="NEW_PASSWORD_REQUIRED",
                    ChallengeResponses=answers,
                    Session=session,
                ),
                wrong_password(),
            )
        )


def wrong_password() -> Problem:
    """The same for a wrong password, an unknown person, a disabled one, and too many wrong tries."""
    return Problem(401, "WRONG_PASSWORD", "the name or the password is wrong")


def session_of(answer: Any) -> Session:
    found = answer["AuthenticationResult"]
    return Session(found["IdToken"], int(found["ExpiresIn"]), found.get("RefreshToken"))


def ask(call: Callable[[], Any], refused: Problem) -> Any:
    """A call of Cognito. Raises Problem or Transient; neither has the call's error as its cause, which quotes it."""
    try:
        return call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
    except BotoCoreError as error:
        raise Transient(f"Cognito: {type(error).__name__}") from None
    if code in WRONG:
        logger.info("refused by Cognito", code=code)
        raise refused
    if code == "PasswordResetRequiredException":
        raise Problem(403, "PASSWORD_RESET", "an administrator has to give you a new password")
    if code == "InvalidPasswordException":
        raise Problem(400, "WEAK_PASSWORD", WEAK_PASSWORD)
    if code in BUSY:
        raise Problem(429, "TOO_MANY", "too many people sign in now; try again in some seconds")
    raise Transient(f"Cognito: {code}")
