"""Money inside the coordinator: prices, double entry, deposits in and payouts out. What pays is `payments`."""
