"""Generation: answers drawn from a model, scored and judged by models, and checked by a forward pass."""
