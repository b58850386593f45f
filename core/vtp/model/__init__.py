"""The composed model: slots, forward context, objectives, weights."""
