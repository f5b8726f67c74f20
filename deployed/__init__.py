"""A deployed Bintally stack, in any AWS account or on this machine; used by the commands and by `local/`."""
