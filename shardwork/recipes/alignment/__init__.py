"""Alignment: recipes that make answers, have people or models judge them, and improve a policy by that."""
