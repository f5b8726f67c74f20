"""What can go wrong with a photograph, told apart by type and never by a message's text.

BintallyError
├── Rejected      it can never be counted: written as REJECTED with the reason, and acknowledged
│   └── Gone      its version is deleted
└── Transient     it cannot be counted now: goes back to the queue
"""


class BintallyError(Exception):
    """Base of all errors that this package raises on purpose."""


class Rejected(BintallyError):
    """The photograph can never be counted; the message is the reason that people read."""


class Gone(Rejected):
    """The version that the event names does not exist any more."""


class Transient(BintallyError):
    """S3, the endpoint or the table could not do its part now."""
