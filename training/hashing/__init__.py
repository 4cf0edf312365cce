"""Binary codes for the vectors of each space: fitted several ways, measured, the best one kept."""
