"""The sealed relay: terminates ICE, forwards DTLS and SRTP unopened."""
