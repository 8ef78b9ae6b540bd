"""The central trainer: history in, a bundle that passed the gate out."""
