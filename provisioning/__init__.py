"""The factory enrolment tool."""
