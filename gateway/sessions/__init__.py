"""Sessions: what can be done with them, and what each side is shown."""
