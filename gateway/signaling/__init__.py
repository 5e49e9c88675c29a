"""Signaling: messages, peers, rooms, SDP rewriting, and the WebSocket shell."""
