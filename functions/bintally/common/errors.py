"""Errors of a photograph, a record file or a table change. Code distinguishes them by type, never by message.

BintallyError
├── Rejected      it can never succeed: stored with the reason (REJECTED, report, quarantine), and acknowledged
│   ├── Gone        its version is deleted
│   └── WrongEvent  a function was given an event of another kind (events.py)
└── Transient     it cannot succeed now: the queue or the stream delivers it again
"""


class BintallyError(Exception):
    """Base of all errors that this package raises deliberately."""


class Rejected(BintallyError):
    """It can never succeed; the message is the reason that people read."""


class Gone(Rejected):
    """The version that the event names no longer exists."""


class Transient(BintallyError):
    """S3, the endpoint or the table is unavailable or throttles."""
