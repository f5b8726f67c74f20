"""Turns AWS's refusals into errors with a cure: a missing permission, an expired session, no region.

`translate_refusals(session)` makes every client of a session raise them, so that no caller mistakes a refusal for a
missing resource.
"""

import re
from typing import Any

from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import OperationModel

from deployed.errors import Denied, NoAccess, StackError

DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "403"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
UNKNOWN = {
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
NAMED = re.compile(r'not authorized to perform: "?([\w-]+:\w+)"?(?: on resource: "?([^\s"]+)"?)?')
ACTIONS = {"ListObjects": "ListBucket", "ListObjectsV2": "ListBucket", "HeadBucket": "ListBucket"}
ACTIONS |= {"HeadObject": "GetObject", "GetBucketEncryption": "GetEncryptionConfiguration"}
ACTIONS |= {"GetPublicAccessBlock": "GetBucketPublicAccessBlock"}
"""S3's actions whose names differ from the operation's."""

SIGN_IN = "Sign in again, for example with: aws sso login"


def translate_refusals(session: Any) -> None:
    """Makes the clients of a boto3 session raise Denied or NoAccess when AWS refuses a request."""
    session.events.register("after-call", _raise_refusal)


def _raise_refusal(parsed: dict[str, Any], model: OperationModel, **_: object) -> None:
    error = parsed.get("Error", {})
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    if code in DENIED:
        raise denied(message, model)
    if code in EXPIRED:
        raise NoAccess(f"the AWS session has expired. {SIGN_IN}")
    if code in UNKNOWN:
        raise NoAccess(
            f"AWS does not accept these credentials ({code}). Check --profile, AWS_PROFILE and AWS_ACCESS_KEY_ID"
        )


def denied(message: str, model: OperationModel) -> Denied:
    """Denied with the permission that AWS names, else with the one that the operation needs."""
    if found := NAMED.search(message):
        return Denied(found[1], (found[2] or "").rstrip(".,;"))
    return Denied(f"{model.service_model.signing_name}:{ACTIONS.get(model.name, model.name)}")


def explain(error: BotoCoreError | ClientError) -> StackError:
    """Describes an error of an AWS client in one line with a cure."""
    if isinstance(error, ClientError):
        answer = error.response.get("Error", {})
        return StackError(f"{error.operation_name} failed: {answer.get('Message')} ({answer.get('Code')})")
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return NoAccess(
            "no AWS credentials found. Give --profile, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and its secret"
        )
    if isinstance(error, exceptions.ProfileNotFound):
        return NoAccess(f"{lower_first(str(error))}. List the profiles with: aws configure list-profiles")
    if isinstance(error, exceptions.NoRegionError):
        return no_region()
    if isinstance(error, exceptions.SSOError | exceptions.TokenRetrievalError | exceptions.CredentialRetrievalError):
        return NoAccess(f"the AWS session cannot be used: {lower_first(one_line(error))}. {SIGN_IN}")
    return StackError(lower_first(one_line(error)))


def no_region() -> NoAccess:
    return NoAccess("no AWS region is set. Give --region, or set AWS_REGION")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
