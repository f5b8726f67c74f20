"""A deployed Bintally stack, in any AWS account or on this machine, as its commands and `local/` use it."""
