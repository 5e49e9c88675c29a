"""Receipts: what each side is told of a bill, as mail and as page, numbered without gaps."""
