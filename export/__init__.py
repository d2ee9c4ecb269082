"""What a lowered program becomes outside of Python: executables that run by themselves."""
