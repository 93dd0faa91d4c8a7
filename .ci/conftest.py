"""What the checks need of the process they run in."""

import signal

# What is started in the background ignores Ctrl-C, and so would the servers that are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
