"""The embedded stack of a first run: Valkey, Stripe sandbox, mailbox, demo marketplace."""
