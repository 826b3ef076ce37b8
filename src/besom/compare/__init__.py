"""What people see of a sweep: trials as tables, charts and pages."""
