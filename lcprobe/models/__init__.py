"""Language models: embedding, blocks of mixers and MLPs, norm, head; layouts, matched sizes, states and their cost."""
