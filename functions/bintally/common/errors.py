"""What can go wrong with a photograph, a file of records or a change of the table, told apart by type and never by a
message's text.

BintallyError
├── Rejected      it can never be worked on: kept with the reason (REJECTED, a report, put aside), and acknowledged
│   └── Gone      its version is deleted
└── Transient     it cannot be worked on now: goes back to the queue, or comes again from the stream
"""


class BintallyError(Exception):
    """Base of all errors that this package raises on purpose."""


class Rejected(BintallyError):
    """It can never be worked on; the message is the reason that people read."""


class Gone(Rejected):
    """The version that the event names does not exist any more."""


class Transient(BintallyError):
    """S3, the endpoint or the table could not do its part now."""
