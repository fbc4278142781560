"""A whole federation on one machine, with the same apps that run at real sites."""
