"""What happens on the site, as a live feed: server-sent events from a group with history."""
