"""One module per op: cases at the sizes that matter here, each with the peers that can be imported."""
