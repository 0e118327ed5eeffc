"""What speaks to the DMZ."""
