"""The meter: intervals and their union, the schedule of cap and warnings, the finalized record, the ledger in Redis."""
