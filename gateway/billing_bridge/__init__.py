"""The bridge to Stripe: holds, captures, transfers, receipts, webhooks out."""
