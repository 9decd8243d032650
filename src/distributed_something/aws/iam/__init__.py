"""Who may do what: roles of tasks and machines, and the policies of users."""
