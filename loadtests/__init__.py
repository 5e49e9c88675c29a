"""`make bench`: what the gateway's parts cost and hold, side by side with others on the same machine."""
