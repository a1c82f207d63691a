//! The agent loop: a model with tools, one turn a step.
