"""REST for the marketplace: routes, schemas, problem details, idempotency, OpenAPI, health."""
