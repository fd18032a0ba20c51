"""Knowing that there is something to read: sockets, the kernel's alarms, and who watches them."""
