"""People's sign-in on the emulator: what ministack leaves open, and that it is closed here."""

import json
import time
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from deployed.errors import Denied
from local.stack import REGION, Local

BOTH = pytest.mark.parametrize("which", ["bare", "ours"])
GIVEN, OWN = "given-by-an-admin", "correct horse battery staple"
PASSWORDS = {"MinimumLength": 12} | {
    f"Require{kind}": False for kind in ("Uppercase", "Lowercase", "Numbers", "Symbols")
}


@pytest.fixture
def stack(which: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(which)


@pytest.fixture
def pool(stack: Local) -> dict[str, str]:
    """A pool with ana, whose password an administrator gave her. A session of its client lasts for a second."""
    cognito = stack.client("cognito-idp")
    made = cognito.create_user_pool(PoolName="people", Policies={"PasswordPolicy": PASSWORDS})["UserPool"]["Id"]
    client = cognito.create_user_pool_client(
        UserPoolId=made,
        ClientName="page",
        ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        RefreshTokenValidity=1,
        TokenValidityUnits={"RefreshToken": "seconds"},
    )["UserPoolClient"]["ClientId"]
    cognito.admin_create_user(UserPoolId=made, Username="ana", TemporaryPassword=GIVEN, MessageAction="SUPPRESS")
    return {"UserPoolId": made, "ClientId": client}


def sign_in(stack: Local, pool: dict[str, str], password: str) -> Any:
    parameters = {"USERNAME": "ana", "PASSWORD": password}
    return stack.client("cognito-idp").admin_initiate_auth(
        **pool, AuthFlow="ADMIN_USER_PASSWORD_AUTH", AuthParameters=parameters
    )


def choose(stack: Local, pool: dict[str, str], session: str, password: str) -> Any:
    return stack.client("cognito-idp").admin_respond_to_auth_challenge(
        **pool,
        ChallengeName="NEW_PASSWORD_REQUIRED",
        Session=session,
        ChallengeResponses={"USERNAME": "ana", "NEW_PASSWORD": password},
    )["AuthenticationResult"]


@BOTH
def test_a_chosen_password_follows_the_policy(stack: Local, which: str, pool: dict[str, str]) -> None:
    session = sign_in(stack, pool, GIVEN)["Session"]
    if which == "ours":
        with pytest.raises(ClientError, match="InvalidPasswordException"):
            choose(stack, pool, session, "short")
        assert choose(stack, pool, session, OWN)["IdToken"]
    else:
        assert choose(stack, pool, session, "short")["IdToken"]


@BOTH
def test_a_session_ends_in_time(stack: Local, which: str, pool: dict[str, str]) -> None:
    session = sign_in(stack, pool, GIVEN)["Session"]
    refresh = choose(stack, pool, session, OWN)["RefreshToken"]
    cognito = stack.client("cognito-idp")

    def renewed() -> bool:
        try:
            cognito.admin_initiate_auth(
                **pool, AuthFlow="REFRESH_TOKEN_AUTH", AuthParameters={"REFRESH_TOKEN": refresh}
            )
        except cognito.exceptions.NotAuthorizedException:
            return False
        return True

    deadline = time.monotonic() + 5
    while renewed() and time.monotonic() < deadline - (3 if which == "bare" else 0):
        time.sleep(0.1)
    assert renewed() == (which == "bare")


def answer_for(stack: Local, pool: dict[str, str], action: str, body: dict[str, Any], key: Credentials) -> Any:
    """An operation of Cognito that clients do not sign, signed."""
    headers = {
        "X-Amz-Target": f"AWSCognitoIdentityProviderService.{action}",
        "Content-Type": "application/x-amz-json-1.1",
        "Host": f"127.0.0.1:{stack.port}",
    }
    request = AWSRequest("POST", f"{stack.endpoint_url}/", headers=headers, data=json.dumps(body).encode())
    SigV4Auth(key, "cognito-idp", REGION).add_auth(request)
    return URLLib3Session().send(request.prepare())


@BOTH
def test_nobody_answers_a_challenge_for_another(stack: Local, which: str, pool: dict[str, str]) -> None:
    """In ministack any answer to NEW_PASSWORD_REQUIRED signs its sender in, without a session."""
    key = stack.owner_key()
    owner = Credentials(key.access_key_id, key.secret_access_key)
    body = {
        "ClientId": pool["ClientId"],
        "ChallengeName": "NEW_PASSWORD_REQUIRED",
        "ChallengeResponses": {"USERNAME": "ana", "NEW_PASSWORD": OWN},
    }
    answer = answer_for(stack, pool, "RespondToAuthChallenge", body, owner)
    assert ("IdToken" in answer.text) == (which == "bare"), answer.text
    if which == "ours":
        for action in ("InitiateAuth", "SignUp", "ForgotPassword", "ConfirmForgotPassword", "GetUser"):
            refused = answer_for(stack, pool, action, {"ClientId": pool["ClientId"]}, owner)
            assert "is closed on this machine" in refused.text
        with pytest.raises(Denied):  # unsigned
            stack.client("cognito-idp").respond_to_auth_challenge(**body)
        assert "Session" in sign_in(stack, pool, GIVEN), "her password is as it was"
