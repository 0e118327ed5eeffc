"""What a plant acts on: reports, effectiveness, baselines, alerts and their causes."""
