"""The bridge to Stripe: holds, captures, transfers, refunds, what Stripe tells, and what the ledger is held against."""
