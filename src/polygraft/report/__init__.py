"""Results in, one HTML page out: readable without JavaScript or a network, by an engineer and by a manager."""
