"""What people see: the funnel, the plan, progress. Renders values, decides nothing."""
