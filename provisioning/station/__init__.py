"""The factory's station: takes a unit from a bare board to a device that can prove what it is."""
