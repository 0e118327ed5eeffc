"""The transparency log's mathematics and texts: RFC 6962 and C2SP. Pure."""
