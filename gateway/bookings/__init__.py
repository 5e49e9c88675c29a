"""Bookings: several meetings on one charge (R14)."""
