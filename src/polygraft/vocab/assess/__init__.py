"""Before anything is trained: what another vocabulary would gain, what it would cost, and which way fits."""
