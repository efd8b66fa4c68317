"""Neurons: `lif` has the recursion that every engine follows, one step forward and back; `options` its options."""
