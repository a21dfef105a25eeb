"""What a job made, on its way to its owner: whole folders, and the samples that a report shows."""
