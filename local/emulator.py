"""AWS on this machine: ministack in this process, with what this stack needs put right.

    python -m local.emulator        # reads BINTALLY_PORT and BINTALLY_HOME

Every touch of ministack's internals is in this file, one function a gap; tests/local shows for each that
ministack alone has the gap and that ours closes it, so that a test fails when upstream no longer needs us.
"""

import os
from pathlib import Path

SERVICES = (
    "cloudformation,dynamodb,dynamodbstreams,events,iam,kms,lambda,logs,monitoring,s3,scheduler,sns,sqs,states,sts"
)


def environment(home: Path, port: int) -> dict[str, str]:
    """ministack's settings: loopback only, identity checks on, state kept in `home` over an orderly stop."""
    return {
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "PERSIST_STATE": "1",
        "S3_DATA_DIR": str(home / "s3"),
        "S3_PERSIST": "1",
        "SERVICES": SERVICES,
        "SFTP_ENABLED": "0",
        "STATE_DIR": str(home / "state"),
    }


def main() -> None:
    home = Path(os.environ["BINTALLY_HOME"])
    # ministack reads its settings when it is imported.
    os.environ.update(environment(home, int(os.environ["BINTALLY_PORT"])))
    from ministack import app

    app.main()


if __name__ == "__main__":
    main()
