"""What is shown to people: tables, trajectories, plots."""
