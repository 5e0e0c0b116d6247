"""Statistics of the probe: intervals, differences, power. Knows numbers only."""
