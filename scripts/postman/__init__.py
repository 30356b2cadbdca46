"""The Postman collection: a story told by hand, and all that the OpenAPI document knows about each request."""
