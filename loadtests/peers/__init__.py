"""The relays that are measured, each set up with its callers: a `Rig`."""
