"""Times beside peers; nothing is printed when the answers disagree."""
