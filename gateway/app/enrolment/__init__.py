"""The unit's side of enrolment, and the folder that it leaves behind."""
