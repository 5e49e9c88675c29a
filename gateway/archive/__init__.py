"""A session's records after its end: into files that prove themselves, and back; export, erasure, evidence."""
