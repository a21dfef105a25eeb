"""Guards: what watches over a policy that learns: alarms, and what it refuses before and after."""
