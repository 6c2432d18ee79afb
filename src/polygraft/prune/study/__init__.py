"""What the language of the calibration text does: every language's calibration read in every language, with its noise beside it."""
