"""Is a found loss really better?"""
