"""One module per layout of files on disk; :mod:`.registry` recognises and runs them."""
