"""Payees: who can be paid and from which platform account at Stripe (R16, R17), and what they have earned (R18)."""
