"""What a shift came to: reports, effectiveness, statements."""
