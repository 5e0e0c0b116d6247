"""Who answers the questions: the contract that every probed model satisfies."""
