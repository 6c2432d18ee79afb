"""What training reads: sources mixed, filtered, freed of duplicates and of evaluation items, and split; all of it by content."""
