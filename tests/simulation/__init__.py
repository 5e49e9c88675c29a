"""A simulator of sessions from order to settlement: the gateway's own cores and shells under simulated time, network,
Redis, relay and Stripe, with faults at every step drawn from a seed, and the laws checked after each session.

    world      time, processes that can die, the network between them and Redis or Stripe
    faults     what can go wrong, and the points at which it does
    store      a model of the Lua rules of journal and ledger (held against a real Valkey by `test_store`)
    stripe     a model of one Stripe account
    relay      the gate of a call on one node, and the truth about how long it was open
    people     client and expert, with their networks; the marketplace; the receiver of webhooks
    gateway    the processes of the gateway: the real shells, driven without an event loop
    laws       what must hold afterwards
    tally      what was covered
"""
