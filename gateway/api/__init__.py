"""The REST API: one table of endpoints that serves requests and writes its own OpenAPI document."""
