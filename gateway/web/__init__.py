"""HTTPS for people and systems of the DMZ."""
