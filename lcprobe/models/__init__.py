"""Language models: blocks of mixers and MLPs between embedding and head; layouts, matched sizes, states and costs."""
