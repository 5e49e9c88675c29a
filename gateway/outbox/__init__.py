"""The outbox: work that waits in sorted sets, claimed for a while, and when an attempt is made again."""
